//! A connection to PostgreSQL, with a time limit for each step, and an ear for its notifications.
//!
//! What is said of an error never has the values in it: rows hold passwords.

use std::error::Error as _;
use std::future::{pending, poll_fn};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a connection, or a statement, may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a server that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two tries to reach it.
const PAUSE: Duration = Duration::from_secs(1);

/// Who logs in, where and how.
#[derive(Clone)]
pub struct Login {
    config: Config,
    tls: Option<Arc<ClientConfig>>,
}

/// Why nothing came of a statement.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The server is not there, or went away.
    #[error("PostgreSQL can't be reached: {0}")]
    Lost(String),
    /// It refuses.
    #[error("PostgreSQL says: {0}")]
    Refused(String),
}

impl Login {
    /// `tls` asks for TLS to a server with a certificate for its name, of the machine's roots of trust
    /// or these further ones in PEM. `config` has the time limits of the connection from here on.
    pub fn new(mut config: Config, tls: Option<&[u8]>) -> io::Result<Login> {
        let said = config.get_options().unwrap_or_default();
        // Its notices are nothing to an operator.
        let ours = format!(
            "{said} -c statement_timeout={0} -c idle_in_transaction_session_timeout={0} \
             -c client_min_messages=warning",
            LIMIT.as_millis()
        );
        config
            .options(ours.trim_start())
            .connect_timeout(LIMIT / 3)
            .tcp_user_timeout(LIMIT)
            .keepalives_idle(LIMIT)
            .keepalives_interval(LIMIT / 3)
            .keepalives_retries(3);
        let tls = match tls {
            Some(roots) => Some(Arc::new(trusting(roots)?)),
            None => None,
        };
        Ok(Login { config, tls })
    }

    /// Logs in. The connection works only while something of the same runtime is waited for.
    async fn connect(&self) -> Result<(Client, Ear), Fault> {
        let late = |_| Fault::Lost(format!("no answer within {} s", LIMIT.as_secs()));
        match &self.tls {
            None => {
                let connected = timeout(LIMIT, self.config.connect(NoTls)).await;
                let (client, mut connection) = connected.map_err(late)?.map_err(Fault::from)?;
                Ok((client, Box::new(move |cx| connection.poll_message(cx))))
            }
            Some(tls) => {
                let tls = MakeRustlsConnect::new(ClientConfig::clone(tls));
                let connected = timeout(LIMIT, self.config.connect(tls)).await;
                let (client, mut connection) = connected.map_err(late)?.map_err(Fault::from)?;
                Ok((client, Box::new(move |cx| connection.poll_message(cx))))
            }
        }
    }
}

/// Drives a connection, and gives what the server says by itself.
type Ear = Box<
    dyn FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Result<AsyncMessage, Error>>>
        + Send,
>;

fn trusting(further: &[u8]) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // What can't be read of the machine's is none to trust.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in CertificateDer::pem_slice_iter(further) {
        let certificate = certificate.map_err(|error| io::Error::other(error.to_string()))?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        if let Some(said) = error.as_db_error() {
            let gone = [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::TOO_MANY_CONNECTIONS,
                SqlState::T_R_DEADLOCK_DETECTED,
            ];
            // Without its detail, which may show a row.
            let text = format!("{} ({})", said.message(), said.code().code());
            return match gone.contains(said.code()) {
                true => Fault::Lost(text),
                false => Fault::Refused(text),
            };
        }
        let mut text = error.to_string();
        let mut source = error.source();
        let mut of_network = error.is_closed();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            // rustls wraps its own faults, which stay, in such errors too.
            of_network |= cause
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() != io::ErrorKind::InvalidData);
            source = cause.source();
        }
        match of_network {
            true => Fault::Lost(text),
            false => Fault::Refused(text),
        }
    }
}

/// A server. One statement at a time.
pub struct Server {
    login: Login,
    link: Mutex<Link>,
}

struct Link {
    runtime: Runtime,
    client: Option<Client>,
}

impl Server {
    /// Logs in, once.
    pub fn connect(login: Login) -> Result<Server, Fault> {
        let mut link = Link {
            runtime: runtime().map_err(|error| Fault::Refused(error.to_string()))?,
            client: None,
        };
        link.connected(&login)?;
        Ok(Server {
            login,
            link: Mutex::new(link),
        })
    }

    /// Does `work`, and does it again, told so, when the server went away under it: whether the first
    /// time had an effect is not known then.
    pub fn run<T>(
        &self,
        work: impl AsyncFn(&mut Client, bool) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let mut link = lock(&self.link);
        let until = Instant::now() + PATIENCE;
        let mut again = false;
        loop {
            let done = match link.connected(&self.login) {
                Ok(()) => link.once(&work, &mut again),
                Err(fault) => Err(fault),
            };
            match done {
                Err(Fault::Lost(why)) if Instant::now() < until => {
                    log::debug!("PostgreSQL: {why}; again in {PAUSE:?}");
                    thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }
}

impl Link {
    fn connected(&mut self, login: &Login) -> Result<(), Fault> {
        if self
            .client
            .as_ref()
            .is_some_and(|client| !client.is_closed())
        {
            return Ok(());
        }
        let (client, mut ear) = self.runtime.block_on(login.connect())?;
        self.runtime
            .spawn(async move { while let Some(Ok(_)) = poll_fn(&mut ear).await {} });
        self.client = Some(client);
        Ok(())
    }

    fn once<T>(
        &mut self,
        work: &impl AsyncFn(&mut Client, bool) -> Result<T, Error>,
        again: &mut bool,
    ) -> Result<T, Fault> {
        let Some(client) = &mut self.client else {
            return Err(Fault::Lost("there is no connection".to_owned()));
        };
        let done = self.runtime.block_on(async {
            // Longer than the server's own limit, so that this is only for one that says nothing.
            timeout(LIMIT * 2, work(client, *again)).await
        });
        *again = true;
        let fault = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Fault::from(error),
            Err(_) => Fault::Lost(format!("no answer within {} s", 2 * LIMIT.as_secs())),
        };
        if matches!(fault, Fault::Lost(_)) {
            self.client = None;
        }
        Err(fault)
    }
}

/// Hears a channel's notifications (LISTEN) in a thread of its own, until it is dropped.
pub struct Listener {
    _end: oneshot::Sender<()>,
}

impl Listener {
    /// `heard` is called for each notification, and when there may have been one: at the beginning, and
    /// after the connection was lost. `channel` is an identifier of SQL.
    pub fn start(
        login: &Login,
        channel: &'static str,
        heard: impl Fn() + Send + 'static,
    ) -> io::Result<Listener> {
        let (end, ended) = oneshot::channel::<()>();
        let runtime = runtime()?;
        let login = login.clone();
        thread::Builder::new()
            .name("listener".to_owned())
            .spawn(move || {
                let listening = Box::pin(async {
                    loop {
                        if let Err(fault) = listen(&login, channel, &heard).await {
                            log::debug!("listening to PostgreSQL: {fault}");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                });
                runtime.block_on(select(ended, listening));
            })?;
        Ok(Listener { _end: end })
    }
}

/// Listens until the connection is lost.
async fn listen(login: &Login, channel: &str, heard: &impl Fn()) -> Result<(), Fault> {
    let (client, mut ear) = login.connect().await?;
    let hear = Box::pin(async move {
        while let Some(Ok(message)) = poll_fn(&mut ear).await {
            if let AsyncMessage::Notification(_) = message {
                heard();
            }
        }
    });
    let ask = Box::pin(async {
        let words = format!("LISTEN {channel}");
        if let Ok(asked) = timeout(LIMIT, client.batch_execute(&words)).await {
            asked?;
            heard();
            pending::<()>().await;
        }
        Ok::<(), Error>(())
    });
    match select(hear, ask).await {
        Either::Left(_) => Ok(()),
        Either::Right((asked, _)) => Ok(asked?),
    }
}

/// For one thread.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// What a panicking thread left behind is whole: a broken connection is seen to be one.
fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
