//! Requests to an HTTP server, with the roots of trust of this machine and what the operator adds.

use std::io;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, http};

use crate::secret::Secret;

/// More than any answer that is expected, in bytes.
const MUCH: u64 = 16 << 20;

/// A client. Connections are kept for the next request.
pub struct Http {
    agent: Agent,
}

/// A request. Its `Debug` has no secret.
#[derive(Debug)]
pub struct Request<'a> {
    /// GET, POST …
    pub method: &'static str,
    /// The whole address.
    pub url: &'a str,
    /// Who asks.
    pub bearer: &'a Secret,
    /// What is sent, as JSON.
    pub json: Option<&'a str>,
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 200 …
    pub status: u16,
    /// Seconds of Retry-After (RFC 9110, 10.2.3).
    pub retry_after: Option<u64>,
    /// What was sent.
    pub body: String,
}

/// Whether a request failed since the server's certificate is not to be trusted.
pub fn is_distrust(error: &io::Error) -> bool {
    let mut cause = error
        .get_ref()
        .map(|cause| cause as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // What an io::Error wraps is no source of it, but the source of that is.
        cause = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

impl Http {
    /// A client whose requests take at most `limit`. `roots` are further certificates, in PEM, to trust
    /// beside the machine's.
    pub fn new(limit: Duration, roots: &[u8]) -> io::Result<Http> {
        let mut certificates = Vec::new();
        // What can't be read of the machine's is none to trust.
        for certificate in rustls_native_certs::load_native_certs().certs {
            certificates.push(Certificate::from_der(&certificate).to_owned());
        }
        for item in ureq::tls::parse_pem(roots) {
            if let PemItem::Certificate(certificate) = item.map_err(io::Error::other)? {
                certificates.push(certificate);
            }
        }
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&certificates))
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(limit))
            .user_agent(concat!("migdb/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Ok(Http {
            agent: config.into(),
        })
    }

    /// Asks, and waits for the answer.
    pub fn send(&self, request: &Request<'_>) -> io::Result<Response> {
        let mut bearer = b"Bearer ".to_vec();
        bearer.extend_from_slice(request.bearer.expose());
        let builder = http::Request::builder()
            .method(request.method)
            .uri(request.url)
            .header("Authorization", bearer);
        let answer = match request.json {
            None => self.agent.run(builder.body(()).map_err(io::Error::other)?),
            Some(json) => {
                let builder = builder.header("Content-Type", "application/json");
                let sent = builder.body(json.to_owned()).map_err(io::Error::other)?;
                self.agent.run(sent)
            }
        };
        let mut answer = answer.map_err(ureq::Error::into_io)?;
        let retry_after = answer.headers().get("Retry-After");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = answer.body_mut().with_config().limit(MUCH).read_to_string();
        Ok(Response {
            status: answer.status().as_u16(),
            retry_after,
            body: body.map_err(ureq::Error::into_io)?,
        })
    }
}
