//! One try to reach a port of a host, straight or through an HTTP proxy, within a time.
//!
//! Called by [`crate::connect`]. Nothing is sent to the host itself: a connection is opened and
//! closed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Sys;
use crate::endpoint::Endpoint;
use crate::secret::Secret;

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub at: Endpoint,
    /// The value of Proxy-Authorization, when it wants one.
    pub authorization: Option<Secret>,
}

/// Why a host can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The name has no address.
    #[error("the name {0} was not found ({1})")]
    Name(String, String),
    /// The resolver gave no answer.
    #[error("no name server answered for {0} within {1} seconds")]
    NameTimeout(String, u64),
    /// Nobody listens.
    #[error("{0} refused the connection")]
    Refused(SocketAddr),
    /// No answer.
    #[error("{0} did not answer within {1} seconds")]
    Timeout(SocketAddr, u64),
    /// Something else.
    #[error("{0}: {1}")]
    Other(SocketAddr, io::Error),
    /// The proxy can't be reached.
    #[error("the proxy {0} can't be reached: {1}")]
    Proxy(Endpoint, Box<Unreachable>),
    /// The proxy was reached and would not go on.
    #[error("the proxy {0} answered: {1}")]
    ProxyAnswer(Endpoint, String),
}

impl Sys {
    /// Opens a connection and closes it. It takes `timeout` at most.
    pub fn reach(
        &self,
        to: &Endpoint,
        proxy: Option<&Proxy>,
        timeout: Duration,
    ) -> Result<(), Unreachable> {
        let until = Instant::now() + timeout;
        let Some(proxy) = proxy else {
            return connect(to, until, timeout).map(drop);
        };
        let stream = connect(&proxy.at, until, timeout)
            .map_err(|error| Unreachable::Proxy(proxy.at.clone(), Box::new(error)))?;
        let answer =
            ask_proxy(stream, to, proxy, until).unwrap_or_else(|error| match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    format!("nothing within {} seconds", timeout.as_secs())
                }
                _ => error.to_string(),
            });
        // RFC 9110, 9.3.6: any 2xx says that the tunnel stands.
        match answer
            .split(' ')
            .nth(1)
            .is_some_and(|code| code.starts_with('2'))
        {
            true => Ok(()),
            false => Err(Unreachable::ProxyAnswer(proxy.at.clone(), answer)),
        }
    }
}

fn connect(to: &Endpoint, until: Instant, timeout: Duration) -> Result<TcpStream, Unreachable> {
    let addresses = look_up(to, until, timeout)?;
    let mut last = None;
    for (number, address) in addresses.iter().enumerate() {
        // Behind an address that swallows everything, as IPv6 often is, another may work.
        let left = (addresses.len() - number) as u32;
        let time = remaining(until) / left;
        match TcpStream::connect_timeout(address, time) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(explain(*address, error, timeout)),
        }
    }
    let none = || "it has no address".to_owned();
    Err(last.unwrap_or_else(|| Unreachable::Name(to.host.clone(), none())))
}

/// The resolver of the system has no time limit, so it gets a thread of its own, which is left to
/// itself when it takes too long.
fn look_up(
    to: &Endpoint,
    until: Instant,
    timeout: Duration,
) -> Result<Vec<SocketAddr>, Unreachable> {
    keep_to_own_resolver();
    let (answer, answered) = mpsc::channel();
    let name = (to.host.clone(), to.port);
    std::thread::spawn(move || {
        let _ = answer.send(name.to_socket_addrs().map(Vec::from_iter));
    });
    match answered.recv_timeout(remaining(until)) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => {
            let error = error.to_string();
            // What std puts before the resolver's own words says nothing more.
            let reason = error.rsplit(": ").next().unwrap_or_default();
            Err(Unreachable::Name(to.host.clone(), reason.to_owned()))
        }
        Err(_) => Err(Unreachable::NameTimeout(to.host.clone(), timeout.as_secs())),
    }
}

/// Keeps the resolver to what is linked into this executable: /etc/hosts and DNS.
///
/// glibc would load the modules that the device's nsswitch.conf names, such as mdns4 or resolve. In
/// a static executable that brings in the device's own libc, of whatever version, beside ours, which
/// is known to crash. `__nss_configure_lookup` is declared in glibc's <nss.h>.
#[cfg(target_env = "gnu")]
fn keep_to_own_resolver() {
    use std::ffi::{c_char, c_int};
    use std::sync::Once;

    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    static ONCE: Once = Once::new();
    // SAFETY: both are C strings that live for ever; it is called once, before the first look-up.
    ONCE.call_once(|| unsafe {
        __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
    });
}

/// Other C libraries load nothing.
#[cfg(not(target_env = "gnu"))]
fn keep_to_own_resolver() {}

fn explain(address: SocketAddr, error: io::Error, timeout: Duration) -> Unreachable {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreachable::Refused(address),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            Unreachable::Timeout(address, timeout.as_secs())
        }
        _ => Unreachable::Other(address, error),
    }
}

/// Asks for a tunnel; the first line of the answer.
fn ask_proxy(
    mut stream: TcpStream,
    to: &Endpoint,
    proxy: &Proxy,
    until: Instant,
) -> io::Result<String> {
    stream.set_write_timeout(Some(remaining(until)))?;
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend(b"Proxy-Authorization: ");
        request.extend(authorization.expose());
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    stream.write_all(&request)?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 200 {
        stream.set_read_timeout(Some(remaining(until)))?;
        match stream.read(&mut byte)? {
            0 => break,
            _ if byte[0] == b'\n' => break,
            _ => line.push(byte[0]),
        }
    }
    let line = String::from_utf8_lossy(&line);
    Ok(match line.trim() {
        "" => "nothing".to_owned(),
        line => line.chars().filter(|c| !c.is_control()).collect(),
    })
}

/// What is left of the time, but never nothing: a time of 0 is an error to the kernel's calls.
fn remaining(until: Instant) -> Duration {
    until
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}
