//! Requests to the balena API: who asks, how often, and what a status means.

use std::time::Duration;

use serde_json::Value;

use crate::secret::Secret;
use crate::sys::Sys;
use crate::sys::http::{self, Http, Request, Response};

use super::BackendError;

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How often a request is made when the server has trouble.
const TRIES: u32 = 5;

/// The first pause between two of these; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// A pause that the server asks for is waited for by the job up to this, and by the unit beyond.
const PATIENCE: Duration = Duration::from_secs(30);

/// The API of a backend.
pub struct Api {
    sys: Sys,
    http: Http,
    base: String,
    token: Secret,
}

/// What a server says to a request that it understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// It did it.
    Done(Value),
    /// It did not: the status and what it says.
    No(u16, String),
}

impl Api {
    /// The API at `base`, such as `https://api.example.org`. `roots` are further certificates in PEM.
    pub fn new(sys: &Sys, base: &str, token: Secret, roots: &[u8]) -> Result<Api, BackendError> {
        let http = Http::new(LIMIT, roots).map_err(|error| {
            BackendError::lasting(format!("the certificates to trust: {error}"))
        })?;
        Ok(Api {
            sys: sys.clone(),
            http,
            base: base.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// Asks for a collection of the model, and gives its members.
    pub fn list(&self, path: &str) -> Result<Vec<Value>, BackendError> {
        match self.call("GET", path, None)? {
            Reply::Done(Value::Object(mut object)) => match object.remove("d") {
                Some(Value::Array(members)) => Ok(members),
                _ => Err(self.odd(path)),
            },
            Reply::Done(_) => Err(self.odd(path)),
            Reply::No(status, text) => Err(self.refused(path, status, &text)),
        }
    }

    /// Sends JSON, and gives the answer.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, BackendError> {
        match self.call("POST", path, Some(body))? {
            Reply::Done(value) => Ok(value),
            Reply::No(status, text) => Err(self.refused(path, status, &text)),
        }
    }

    /// Makes a request, again when the server has trouble: so it must be one that may be made twice.
    pub fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, BackendError> {
        let url = format!("{}{path}", self.base);
        let json = body.map(Value::to_string);
        let request = Request {
            method,
            url: &url,
            bearer: &self.token,
            json: json.as_deref(),
        };
        let mut trouble = String::new();
        for attempt in 0..TRIES {
            let pause = match self.http.send(&request) {
                Err(error) if http::is_distrust(&error) => return Err(self.distrust(&error)),
                Err(error) => {
                    trouble = error.to_string();
                    PAUSE * 2u32.pow(attempt)
                }
                Ok(response) => match pause_for(&response, attempt) {
                    None => return Ok(understood(response)),
                    Some(pause) => {
                        trouble = format!("it answers {}", response.status);
                        pause
                    }
                },
            };
            if pause > PATIENCE {
                return Err(self.trouble(&trouble, Some(pause)));
            }
            if attempt + 1 < TRIES {
                log::debug!("{method} {url}: {trouble}; again in {pause:?}");
                self.sys.sleep(pause);
            }
        }
        Err(self.trouble(&trouble, None))
    }

    fn distrust(&self, error: &std::io::Error) -> BackendError {
        BackendError::lasting(format!(
            "the certificate of {} is not trusted here; give the fleet's config.json with its balenaRootCA \
             by --fleet-config ({error})",
            self.base
        ))
    }

    fn trouble(&self, what: &str, after: Option<Duration>) -> BackendError {
        BackendError {
            message: format!("the backend at {} has trouble: {what}", self.base),
            later: Some(after),
        }
    }

    /// What a refusal means to the operator.
    pub fn refused(&self, path: &str, status: u16, text: &str) -> BackendError {
        let text: String = text.chars().take(200).collect();
        BackendError::lasting(match status {
            401 | 403 => format!(
                "the backend at {} refuses the token ({status} {text}); give another one with \
                 MIG_BALENA_TOKEN",
                self.base
            ),
            _ => format!(
                "the backend at {} answers {status} to {path}: {text}",
                self.base
            ),
        })
    }

    /// An answer that is not as documented.
    pub fn odd(&self, path: &str) -> BackendError {
        BackendError::lasting(format!(
            "{}{path} answers in a way that is not known; is it the address of a balena API?",
            self.base
        ))
    }
}

/// How long to wait before the request is made again; `None` when it was understood.
fn pause_for(response: &Response, attempt: u32) -> Option<Duration> {
    let own = PAUSE * 2u32.pow(attempt);
    match response.status {
        429 | 503 => Some(response.retry_after.map_or(own, Duration::from_secs)),
        500..=599 => Some(own),
        _ => None,
    }
}

fn understood(response: Response) -> Reply {
    match response.status {
        // Some answers are bare texts, such as OK.
        200..=299 => Reply::Done(
            serde_json::from_str(&response.body).unwrap_or(Value::String(response.body)),
        ),
        status => Reply::No(status, response.body),
    }
}

/// A text as part of a query: percent-encoded but for what RFC 3986 leaves alone.
pub fn encode(text: &str) -> String {
    let byte = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(b).to_string()
        }
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A text in an OData literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, retry_after: Option<u64>) -> Response {
        Response {
            status,
            retry_after,
            body: "OK".to_owned(),
        }
    }

    #[test]
    fn pauses_are_the_servers_or_grow() {
        let seconds =
            |response: &Response, attempt| pause_for(response, attempt).map(|p| p.as_secs());
        assert_eq!(seconds(&response(429, Some(7)), 3), Some(7));
        assert_eq!(seconds(&response(429, None), 3), Some(8));
        assert_eq!(seconds(&response(502, None), 0), Some(1));
        assert_eq!(seconds(&response(404, Some(7)), 0), None);
        assert_eq!(understood(response(200, None)), Reply::Done("OK".into()));
    }

    #[test]
    fn what_a_user_names_can_not_leave_its_literal() {
        assert_eq!(encode(&literal("o'x/y z")), "%27o%27%27x%2Fy%20z%27");
    }
}
