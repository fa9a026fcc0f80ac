//! A device over the system's ssh: configuration, agent and jump hosts are the operator's own.
//!
//! All calls to a device share one connection (ControlMaster). It is opened by the first one, and
//! ends by itself when this process is gone. A password goes to ssh by [`super::askpass`].

use std::path::PathBuf;
use std::time::Duration;

use crate::config::shell::quote;
use crate::secret::Secret;
use crate::sys::Sys;
use crate::sys::call::{Answer, Call, Feed};

use super::askpass;
use super::facts::Rights;
use super::settings::{
    MIG_DEF_SSH_OPTS, MIG_HOST_KEYS, MIG_SSH_HOST, MIG_SSH_OPTS, MIG_SSH_PASSWD, MIG_SSH_PORT,
    MIG_SSH_USER, Settings,
};
use super::unit::Unit;

/// How a device is reached.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name or address.
    pub host: String,
    /// The user there, if it is not for ssh's configuration to say.
    pub user: Option<String>,
    /// The port there.
    pub port: u16,
    /// The operator's options for ssh. They win over ours.
    pub options: Vec<String>,
    /// The password of the user there.
    pub password: Option<Secret>,
    /// StrictHostKeyChecking of ssh_config(5).
    pub host_keys: String,
}

/// Why a call came to nothing. The texts are for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// The device could not be reached, or the connection was cut.
    #[error("{0}")]
    Connection(String),
    /// It took too long.
    #[error("{what} did not end within {} s", limit.as_secs())]
    Late {
        /// What was called.
        what: String,
        /// Its limit.
        limit: Duration,
    },
    /// This machine has a fault, such as no ssh.
    #[error("{0}")]
    Here(String),
}

impl Target {
    /// The one of a unit.
    pub fn of(unit: &Unit, settings: &Settings) -> Result<Target, String> {
        let host = settings
            .of(unit, &MIG_SSH_HOST)
            .ok_or("it has no host; add it with --host")?;
        if host.starts_with('-') {
            return Err(format!("`{host}` can't be a host; it begins with a dash"));
        }
        let options = settings
            .of(unit, &MIG_SSH_OPTS)
            .or_else(|| settings.shared(&MIG_DEF_SSH_OPTS))
            .unwrap_or_default();
        let port = settings.of(unit, &MIG_SSH_PORT);
        Ok(Target {
            host,
            user: settings.of(unit, &MIG_SSH_USER),
            port: port.and_then(|port| port.parse().ok()).unwrap_or(22),
            options: shell_words::split(&options)
                .map_err(|_| format!("the ssh options `{options}` lack a closing quote"))?,
            password: settings.of(unit, &MIG_SSH_PASSWD).map(Secret::new),
            host_keys: settings.shared(&MIG_HOST_KEYS).unwrap_or_default(),
        })
    }
}

/// A device that can be called.
pub struct Ssh {
    sys: Sys,
    target: Target,
    /// Holds the socket of the connection.
    folder: tempfile::TempDir,
    answerer: PathBuf,
}

/// ssh ends with it when the fault is its own.
const OWN_FAULT: i32 = 255;

impl Ssh {
    /// Prepares to call `target`; nothing is sent yet.
    pub fn new(sys: &Sys, target: Target) -> Result<Ssh, SshError> {
        let this = std::env::current_exe()
            .map_err(|error| SshError::Here(format!("finding this program: {error}")))?;
        Ssh::answered_by(sys, target, this)
    }

    /// As [`Ssh::new`], with another program than this to answer ssh's questions ([`askpass`]).
    pub fn answered_by(
        sys: &Sys,
        target: Target,
        answerer: impl Into<PathBuf>,
    ) -> Result<Ssh, SshError> {
        // The path of a socket has 107 bytes at most (unix(7)): in /tmp, whatever TMPDIR is.
        let folder = tempfile::Builder::new()
            .prefix("migdb-")
            .tempdir_in("/tmp")
            .map_err(|error| SshError::Here(format!("making a folder in /tmp: {error}")))?;
        Ok(Ssh {
            sys: sys.clone(),
            target,
            folder,
            answerer: answerer.into(),
        })
    }

    /// The password of the user there.
    pub fn password(&self) -> Option<&Secret> {
        self.target.password.as_ref()
    }

    /// Runs a command there, as the user's shell reads it. `what` names it for messages.
    pub fn run(
        &self,
        what: &str,
        command: &str,
        limit: Duration,
        feed: Option<Feed<'_>>,
        heard: &mut dyn FnMut(&[u8]),
    ) -> Result<Answer, SshError> {
        let mut argv = self.argv();
        argv.extend([
            "--".to_owned(),
            self.target.host.clone(),
            command.to_owned(),
        ]);
        let call = Call {
            argv,
            variables: self.variables(),
            limit,
        };
        let answer = self
            .sys
            .call(&call, feed, heard)
            .map_err(|error| SshError::Here(format!("calling ssh: {error}")))?;
        if answer.late {
            let what = what.to_owned();
            return Err(SshError::Late { what, limit });
        }
        if let Some(failed) = &answer.feed_failed {
            return Err(SshError::Here(format!("{what}: {failed}")));
        }
        match answer.code {
            Some(OWN_FAULT) | None => Err(SshError::Connection(self.why(&answer))),
            Some(_) => Ok(answer),
        }
    }

    /// Runs a script there by sh, whatever the user's shell is, and gives its output.
    pub fn script(
        &self,
        what: &str,
        script: &str,
        limit: Duration,
    ) -> Result<(Answer, String), SshError> {
        let mut output = Vec::new();
        let answer = self.run(
            what,
            "exec sh -s",
            limit,
            Some(&mut |to| to.write_all(script.as_bytes())),
            &mut |bytes| output.extend_from_slice(bytes),
        )?;
        Ok((answer, String::from_utf8_lossy(&output).into_owned()))
    }

    /// Runs a command there as root. The password goes to sudo as the first line of its input, and
    /// only when sudo reads one: -k makes it ask, whatever it remembers.
    pub fn run_as_root(
        &self,
        rights: Rights,
        what: &str,
        command: &str,
        limit: Duration,
        heard: &mut dyn FnMut(&[u8]),
    ) -> Result<Answer, SshError> {
        let command = quote(command);
        match (rights, &self.target.password) {
            (Rights::Root | Rights::None, _) => {
                self.run(what, &format!("exec sh -c {command}"), limit, None, heard)
            }
            (Rights::Password, Some(password)) => {
                let mut line = password.expose().to_vec();
                line.push(b'\n');
                self.run(
                    what,
                    &format!("exec sudo -k -S -p '' sh -c {command}"),
                    limit,
                    Some(&mut |to| to.write_all(&line)),
                    heard,
                )
            }
            (Rights::Sudo | Rights::Password, _) => self.run(
                what,
                &format!("exec sudo -n sh -c {command}"),
                limit,
                None,
                heard,
            ),
        }
    }

    fn argv(&self) -> Vec<String> {
        let mut argv = vec!["ssh".to_owned(), "-T".to_owned()];
        let socket = self.folder.path().join("s");
        let ours = [
            "ControlMaster=auto".to_owned(),
            format!("ControlPath={}", socket.display()),
            // Longer than from one call to the next; a killed worker's connections end by it.
            "ControlPersist=120".to_owned(),
        ];
        argv.extend(ours.into_iter().flat_map(option));
        // ssh takes the first value that it is given for an option.
        argv.extend(self.target.options.iter().cloned());
        let defaults = [
            format!("StrictHostKeyChecking={}", self.target.host_keys),
            "ConnectTimeout=20".to_owned(),
            "ServerAliveInterval=15".to_owned(),
            "ServerAliveCountMax=4".to_owned(),
            match self.target.password {
                Some(_) => "NumberOfPasswordPrompts=1".to_owned(),
                None => "BatchMode=yes".to_owned(),
            },
        ];
        argv.extend(defaults.into_iter().flat_map(option));
        argv.extend(["-p".to_owned(), self.target.port.to_string()]);
        if let Some(user) = &self.target.user {
            argv.extend(["-l".to_owned(), user.clone()]);
        }
        argv
    }

    fn variables(&self) -> Vec<(&'static str, Secret)> {
        let Some(password) = &self.target.password else {
            return Vec::new();
        };
        let answerer = self.answerer.as_os_str().as_encoded_bytes();
        vec![
            ("SSH_ASKPASS", Secret::new(answerer)),
            // OpenSSH 8.4; older ones ask only with a DISPLAY and without a terminal.
            ("SSH_ASKPASS_REQUIRE", Secret::new("force")),
            ("DISPLAY", Secret::new("none")),
            (askpass::VARIABLE, password.clone()),
            (askpass::CALLER, Secret::new(std::process::id().to_string())),
        ]
    }

    /// ssh's last word, or ours when it has none.
    fn why(&self, answer: &Answer) -> String {
        match answer.complaint() {
            Some(line) => line.to_owned(),
            None => format!("the connection to {} was cut", self.target.host),
        }
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let mut argv = self.argv();
        let close = ["-O", "exit", "--", self.target.host.as_str()];
        argv.extend(close.map(str::to_owned));
        let call = Call {
            argv,
            variables: Vec::new(),
            limit: Duration::from_secs(5),
        };
        if self.folder.path().join("s").exists()
            && let Err(error) = self.sys.call(&call, None, &mut |_| {})
        {
            log::debug!("closing the connection to {}: {error}", self.target.host);
        }
    }
}

fn option(value: String) -> [String; 2] {
    ["-o".to_owned(), value]
}
