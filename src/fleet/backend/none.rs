//! No backend: the config.json is given with the unit or the folder, and a device is online when it
//! answers.

use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::path;
use crate::fleet::settings::{MIG_CONFIG_JSON, MIG_ONLINE, MIG_SSH_HOST, Settings};
use crate::fleet::unit::{Unit, field};
use crate::secret::Secret;
use crate::sys::Sys;
use crate::sys::call::Call;

use super::{Backend, BackendError, Seen};

/// The port of balenaOS's own sshd.
const PORT: u16 = 22222;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// See the module.
pub struct NoBackend {
    sys: Sys,
}

impl NoBackend {
    /// On this machine.
    pub fn new(sys: &Sys) -> NoBackend {
        NoBackend { sys: sys.clone() }
    }

    fn ask(&self, unit: &Unit, command: &str, host: &str) -> Result<Seen, BackendError> {
        let call = Call {
            argv: ["sh", "-c", command].map(str::to_owned).to_vec(),
            variables: vec![
                (MIG_SSH_HOST.name, Secret::new(host)),
                (field::ID, Secret::new(unit.id())),
            ],
            limit: LIMIT,
        };
        let answer = self
            .sys
            .call(&call, None, &mut |_| {})
            .map_err(|error| BackendError::lasting(format!("calling sh: {error}")))?;
        let online = answer.code == Some(0);
        let what = match (online, answer.code) {
            (true, _) => "the command of MIG_ONLINE says so".to_owned(),
            (false, Some(code)) => format!("the command of MIG_ONLINE ended with code {code}"),
            (false, None) => "the command of MIG_ONLINE took too long".to_owned(),
        };
        Ok(Seen { online, what })
    }
}

impl Backend for NoBackend {
    fn prove(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn new_device(&self) -> Result<Option<String>, BackendError> {
        Ok(None)
    }

    fn enrol(&self, unit: &Unit, settings: &Settings) -> Result<Option<Secret>, BackendError> {
        let Some(file) = settings.of(unit, &MIG_CONFIG_JSON) else {
            return Ok(None);
        };
        let read = self
            .sys
            .current_dir()
            .and_then(|cwd| self.sys.read(&path::absolute(&cwd, &file)));
        match read {
            Ok(bytes) => Ok(Some(Secret::new(bytes))),
            Err(error) => Err(BackendError::lasting(format!(
                "{file} can't be read: {error}"
            ))),
        }
    }

    fn look(&self, unit: &Unit, settings: &Settings) -> Result<Seen, BackendError> {
        let host = settings.of(unit, &MIG_SSH_HOST).unwrap_or_default();
        if let Some(command) = settings.of(unit, &MIG_ONLINE) {
            return self.ask(unit, &command, &host);
        }
        let online = answers(&host);
        let what = match online {
            true => format!("ssh answers on port {PORT}"),
            false => format!("nothing answers on port {PORT}"),
        };
        Ok(Seen { online, what })
    }
}

/// Whether an sshd greets there (RFC 4253, 4.2).
fn answers(host: &str) -> bool {
    let Ok(addresses) = (host, PORT).to_socket_addrs() else {
        return false;
    };
    addresses.into_iter().any(|address| {
        let Ok(mut stream) = TcpStream::connect_timeout(&address, LIMIT) else {
            return false;
        };
        let mut greeting = [0; 4];
        let limited = stream.set_read_timeout(Some(LIMIT));
        limited.is_ok() && stream.read_exact(&mut greeting).is_ok() && greeting == *b"SSH-"
    })
}
