//! Whether hosts answer: which ones are asked, and the words for every way not to be reached. All of
//! it on the loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use balena_migrate::config::balena::{self, BalenaConfig};
use balena_migrate::config::{self, Config, Overrides};
use balena_migrate::connect::{self, endpoints};
use balena_migrate::endpoint::Endpoint;
use balena_migrate::secret::Secret;
use balena_migrate::sys::Sys;
use balena_migrate::sys::net::Proxy;

const SHORT: Duration = Duration::from_secs(1);

fn config(text: &str) -> Config {
    let text = format!("IMAGE_NAME=x\n{text}");
    config::merge("c", &text, "/mig", &Overrides::default()).expect("it is right")
}

fn json() -> BalenaConfig {
    let text = r#"{"apiEndpoint": "https://api.fleet.test:8443", "vpnEndpoint": "vpn.fleet.test",
        "vpnPort": 1194}"#;
    balena::inspect("config.json", text.into())
}

fn asked(config: &Config, json: Option<&BalenaConfig>) -> Vec<String> {
    let peers = endpoints(config, json);
    let names = peers
        .iter()
        .map(|peer| format!("{} {}", peer.role, peer.at));
    names.collect()
}

#[test]
fn settings_win_over_config_json_and_that_over_the_defaults() {
    let json = json();
    assert_eq!(
        asked(&config(""), None),
        [
            "API api.balena-cloud.com:443",
            "VPN vpn.balena-cloud.com:443"
        ]
    );
    assert_eq!(
        asked(&config(""), Some(&json)),
        ["API api.fleet.test:8443", "VPN vpn.fleet.test:1194"]
    );
    let set = config("BALENA_API_HOST=mine\nBALENA_VPN_HOST=vpn.mine\nBALENA_VPN_PORT=1\n");
    assert_eq!(asked(&set, Some(&json)), ["API mine:443", "VPN vpn.mine:1"]);
    assert_eq!(
        asked(&config("BALENA_API_PORT=80"), Some(&json)),
        ["API api.fleet.test:80", "VPN vpn.fleet.test:1194"]
    );
    let off = config("BALENA_API_HOST=\nBALENA_VPN_HOST=\"\"\n");
    assert!(asked(&off, Some(&json)).is_empty());
}

fn listener() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
    let port = listener.local_addr().expect("it has an address").port();
    (listener, at("127.0.0.1", port))
}

fn at(host: &str, port: u16) -> Endpoint {
    Endpoint {
        host: host.into(),
        port,
    }
}

/// A port where nobody listens.
fn nobody() -> Endpoint {
    listener().1
}

fn reach(to: &Endpoint, proxy: Option<&Proxy>) -> String {
    match Sys::new("/").reach(to, proxy, SHORT) {
        Ok(()) => "reached".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn who_listens_is_reached() {
    let (_listener, to) = listener();
    assert_eq!(reach(&to, None), "reached");
    assert_eq!(reach(&at("localhost", to.port), None), "reached");
}

#[test]
fn a_refusal_is_said_as_such() {
    let to = nobody();
    assert_eq!(reach(&to, None), format!("{to} refused the connection"));
}

#[test]
fn a_name_without_address_is_said_as_such() {
    let said = reach(&at("no such name", 1), None);
    assert!(said.contains("no such name"), "{said}");
    assert!(said.contains("name"), "{said}");
}

/// A proxy that answers one request with `answer`; what it was asked comes back.
fn proxy(answer: &'static str) -> (Proxy, JoinHandle<String>) {
    let (listener, at) = listener();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody comes");
        let asked = request(&mut stream);
        stream.write_all(answer.as_bytes()).expect("answering");
        asked
    });
    let authorization = Some(Secret::new("Basic eA=="));
    (Proxy { at, authorization }, thread)
}

fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("reading") > 0 {
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("it is text")
}

#[test]
fn a_proxy_is_asked_for_a_tunnel() {
    let (way, thread) = proxy("HTTP/1.1 200 Connection established\r\n\r\n");
    assert_eq!(reach(&at("api.test", 443), Some(&way)), "reached");
    assert_eq!(
        thread.join().expect("it ends"),
        "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Basic eA==\r\n\r\n"
    );
}

#[test]
fn a_proxy_that_will_not_go_on_is_quoted() {
    let (way, _thread) = proxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    assert_eq!(
        reach(&at("api.test", 443), Some(&way)),
        format!(
            "the proxy {} answered: HTTP/1.1 407 Proxy Authentication Required",
            way.at
        )
    );
    let (way, _thread) = proxy("");
    assert_eq!(
        reach(&at("api.test", 443), Some(&way)),
        format!("the proxy {} answered: nothing", way.at)
    );
    let gone = Proxy {
        at: nobody(),
        authorization: None,
    };
    assert_eq!(
        reach(&at("api.test", 443), Some(&gone)),
        format!(
            "the proxy {0} can't be reached: {0} refused the connection",
            gone.at
        )
    );
}

#[test]
fn a_silent_proxy_is_not_waited_for_longer_than_asked() {
    let (_listener, at_proxy) = listener();
    let way = Proxy {
        at: at_proxy,
        authorization: None,
    };
    let started = Instant::now();
    assert_eq!(
        reach(&at("api.test", 443), Some(&way)),
        format!("the proxy {} answered: nothing within 1 seconds", way.at)
    );
    assert!(started.elapsed() < 5 * SHORT);
}

#[test]
fn what_does_not_answer_is_an_error_with_host_port_and_reason() {
    let (_listener, api) = listener();
    let vpn = nobody();
    let config = config(&format!(
        "BALENA_API_HOST=127.0.0.1\nBALENA_API_PORT={}\nBALENA_VPN_HOST=127.0.0.1\n\
         BALENA_VPN_PORT={}\nBALENA_CONNECT_TIMEOUT=2\n",
        api.port, vpn.port
    ));
    let findings = connect::check(&Sys::new("/"), &config, None);
    let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [format!(
            "the VPN {vpn} can't be reached from here: {vpn} refused the connection; the new system \
             will need it: put the network right, or say --no-vpn-check if it will have another"
        )]
    );
    assert_eq!(findings[0].code, "vpn-unreachable");
}
