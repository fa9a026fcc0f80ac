//! Certificates of a private authority, by openssl, and who is trusted with them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::fleet::Fleet;

/// An authority that no machine trusts by itself.
pub struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Authority {
        let authority = Authority {
            dir: tempfile::tempdir().unwrap(),
        };
        authority.openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=ours",
        );
        authority
    }

    fn openssl(&self, words: &str) {
        let output = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    /// Its own certificate, in PEM.
    pub fn root(&self) -> String {
        self.read("ca.pem")
    }

    /// A certificate for a host, and its key.
    pub fn certificate(&self, host: &str) -> (String, String) {
        fs::write(
            self.dir.path().join("names"),
            format!("subjectAltName=DNS:{host}\n"),
        )
        .unwrap();
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {host}.key -out {host}.csr -subj /CN={host}"
        ));
        self.openssl(&format!(
            "x509 -req -in {host}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -out {host}.pem -extfile names"
        ));
        (
            self.read(&format!("{host}.pem")),
            self.read(&format!("{host}.key")),
        )
    }
}

/// An API that knows the one who asks, over TLS; gives its port.
fn api(authority: &Authority) -> u16 {
    let (certificate, key) = authority.certificate("localhost");
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // A request without a body is shorter; who does not trust us says goodbye.
            let body = r#"{"id":1,"actorType":"user"}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.flush();
            }
        }
    });
    port
}

#[test]
fn a_private_authority_is_trusted_by_balena_root_ca_alone() {
    let authority = Authority::new();
    let port = api(&authority);
    let fleet = Fleet::new();
    fleet.open();
    let look = |config: &str| {
        fleet.write("fleet.json", config);
        fleet.write("token", "key");
        fleet.migdb(&[
            "check-done",
            "--until-empty",
            "--fleet-config",
            "fleet.json",
            "--balena-token-file",
            "token",
        ])
    };
    let api = format!(r#""apiEndpoint":"https://localhost:{port}""#);
    let with = |pem: &str| format!(r#"{{{api},"balenaRootCA":"{}"}}"#, STANDARD.encode(pem));

    let ended = look(&with(&authority.root()));
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let clearly = "is not trusted here; give the fleet's config.json with its balenaRootCA by \
                   --fleet-config";
    for config in [format!("{{{api}}}"), with(&Authority::new().root())] {
        let ended = look(&config);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(clearly), "{ended:?}");
    }

    for (config, wanted) in [
        (
            format!(r#"{{{api},"balenaRootCA":"no base64!"}}"#),
            "is no base64",
        ),
        (with("no certificate"), "has no certificate"),
    ] {
        let ended = look(&config);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(wanted), "{ended:?}");
    }
}
