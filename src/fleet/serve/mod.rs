//! A small web page on loopback that shows the fleet as it goes, and the same for Prometheus.
//!
//! It only shows: there is nothing to change the fleet by. One thread watches the store and tells all
//! open pages by server-sent events; the page has all that it needs inside.

mod metrics;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tiny_http::{Header, Method, Request, Response, Server};

use crate::sys::{Sys, interrupt};

use super::moment::Moment;
use super::store::{State, Store};
use super::view::{View, view};

const PAGE: &str = include_str!("page.html");

/// Changes of so long are told together.
const TOGETHER: Duration = Duration::from_millis(300);

/// How often a page without news is told something, to find out whether it is still open.
const BEAT: Duration = Duration::from_secs(15);

/// A server that is ready to answer.
pub struct Page<'a> {
    server: Server,
    address: SocketAddr,
    sys: &'a Sys,
    store: &'a dyn Store,
    logs: &'a str,
    news: News,
}

/// What was seen last, and who waits for more.
#[derive(Default)]
struct News {
    last: Mutex<(u64, Arc<String>)>,
    changed: Condvar,
}

impl<'a> Page<'a> {
    /// Binds `address`, which must be of this machine's loopback.
    pub fn new(
        sys: &'a Sys,
        store: &'a dyn Store,
        logs: &'a str,
        address: SocketAddr,
    ) -> Result<Page<'a>> {
        if !address.ip().is_loopback() {
            return Err(anyhow!(
                "{address} can be reached by others, and the page asks nobody who they are; name an address \
                 such as 127.0.0.1:8080, and reach it from elsewhere by ssh -L"
            ));
        }
        let server =
            Server::http(address).map_err(|error| anyhow!("listening on {address}: {error}"))?;
        let address = server.server_addr().to_ip().unwrap_or(address);
        Ok(Page {
            server,
            address,
            sys,
            store,
            logs,
            news: News::default(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until a signal comes.
    pub fn run(&self) -> Result<()> {
        self.look()?;
        thread::scope(|scope| {
            let watching = scope.spawn(|| self.watch());
            for request in self.server.incoming_requests() {
                scope.spawn(move || {
                    if let Err(error) = self.answer(request) {
                        log::debug!("answering: {error}");
                    }
                });
            }
            watching
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the watch panicked")))
        })
    }

    /// Looks whenever the store changes, until a signal comes.
    fn watch(&self) -> Result<()> {
        let ended = loop {
            if let Err(error) = self.store.wait(BEAT).and_then(|()| {
                self.sys.sleep(TOGETHER);
                self.look()
            }) {
                break Err(error);
            }
            if interrupt::caught() {
                break Ok(());
            }
        };
        self.server.unblock();
        self.news.changed.notify_all();
        ended
    }

    fn look(&self) -> Result<()> {
        let seen = serde_json::to_string(&self.view()?)?;
        let mut last = lock(&self.news.last);
        if *last.1 != seen {
            *last = (last.0 + 1, Arc::new(seen));
            self.news.changed.notify_all();
        }
        Ok(())
    }

    fn view(&self) -> Result<View> {
        Ok(view(&self.store.all()?, Moment::now()))
    }

    fn answer(&self, request: Request) -> io::Result<()> {
        if !self.is_ours(&request) {
            return say(
                request,
                403,
                "text/plain",
                "this page is for this machine only\n".to_owned(),
            );
        }
        let url = request.url().to_owned();
        match (request.method(), url.as_str()) {
            (Method::Get, "/") => say(request, 200, "text/html; charset=utf-8", self.page()),
            (Method::Get, "/units.json") => {
                let last = lock(&self.news.last).1.clone();
                say(request, 200, "application/json", last.to_string())
            }
            (Method::Get, "/events") => self.tell(request.into_writer()),
            (Method::Get, "/metrics") => match self.view() {
                Ok(view) => say(
                    request,
                    200,
                    "text/plain; version=0.0.4",
                    metrics::metrics(&view),
                ),
                Err(error) => say(request, 500, "text/plain", format!("{error:#}\n")),
            },
            (Method::Get, url) => match url.strip_prefix("/log/").and_then(|id| self.log(id)) {
                Some(log) => say(request, 200, "text/plain; charset=utf-8", log),
                None => say(
                    request,
                    404,
                    "text/plain",
                    "there is no such thing\n".to_owned(),
                ),
            },
            _ => say(
                request,
                405,
                "text/plain",
                "this page only shows\n".to_owned(),
            ),
        }
    }

    /// A page of somebody else, open in the same browser, could lead its own name here.
    fn is_ours(&self, request: &Request) -> bool {
        let host = request
            .headers()
            .iter()
            .find(|header| header.field.equiv("Host"));
        let host = host.map_or("", |header| header.value.as_str());
        let port = self.address.port();
        [format!("localhost:{port}"), self.address.to_string()]
            .iter()
            .any(|ours| ours == host)
    }

    /// The page with what was seen last inside, so that there is something to see at once.
    fn page(&self) -> String {
        // In a script element, `<` could end it.
        let units = lock(&self.news.last).1.replace('<', "\\u003c");
        PAGE.replacen("UNITS", &units, 1)
    }

    /// The log of a unit that there is.
    fn log(&self, id: &str) -> Option<String> {
        let known = self
            .store
            .all()
            .ok()?
            .iter()
            .any(|entry| entry.unit.id() == id);
        let bytes = known.then(|| self.sys.read(&format!("{}/{id}.jsonl", self.logs)).ok())??;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Tells an open page all news, until it is closed.
    fn tell(&self, mut to: Box<dyn Write + Send>) -> io::Result<()> {
        to.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
              Connection: close\r\n\r\n",
        )?;
        let mut told = 0;
        while !interrupt::caught() {
            let news = {
                let last = lock(&self.news.last);
                let waited = self
                    .news
                    .changed
                    .wait_timeout_while(last, BEAT, |last| last.0 == told && !interrupt::caught());
                waited
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
                    .0
                    .clone()
            };
            match news.0 == told {
                // A comment, which the page does not see.
                true => to.write_all(b":\n\n")?,
                false => write!(to, "data: {}\n\n", news.1)?,
            }
            to.flush()?;
            told = news.0;
        }
        Ok(())
    }
}

fn say(request: Request, status: u16, kind: &str, text: String) -> io::Result<()> {
    let policy = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    let headers = [
        ("Content-Type", kind),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
    ];
    let mut response = Response::from_string(text).with_status_code(status);
    for (name, value) in headers {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    request.respond(response)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
