//! This program as ssh's SSH_ASKPASS: ssh starts it with a question, and it answers with the password.
//!
//! The password is in the environment that [`super::ssh`] gives to ssh: in no argument, in no file. ssh
//! hands that on to what it starts itself, such as another ssh to a jump host, whose questions are not
//! answered: it would be told the password of the device.

use std::process::ExitCode;

use crate::sys::Sys;

/// The variable that holds the password. That it is there makes this program the answerer.
pub const VARIABLE: &str = "MIGDB_ASKPASS_PASSWORD";

/// The variable with the number of the process that started ssh.
pub const CALLER: &str = "MIGDB_ASKPASS_CALLER";

/// Answers ssh's question, when this process was started for that.
pub fn answer() -> Option<ExitCode> {
    let password = std::env::var_os(VARIABLE)?;
    let question = std::env::args().nth(1)?;
    if !asks_for_password(&question) || !is_asked_by_the_callers_ssh() {
        return Some(ExitCode::FAILURE);
    }
    // ssh reads a line.
    let mut line = std::os::unix::ffi::OsStringExt::into_vec(password);
    line.push(b'\n');
    let written = std::io::Write::write_all(&mut std::io::stdout(), &line);
    Some(match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Whether the asking ssh is the one that was started for the device.
fn is_asked_by_the_callers_ssh() -> bool {
    let sys = Sys::new("/");
    let caller = sys.variable(CALLER).and_then(|pid| pid.parse().ok());
    let ssh = sys.process(sys.parent()).ok().flatten();
    caller.is_some() && ssh.map(|ssh| ssh.parent) == caller
}

/// Not whether a host key is right, and not for the passphrase of a key.
fn asks_for_password(question: &str) -> bool {
    let question = question.to_ascii_lowercase();
    question.contains("password") && !question.contains("yes/no")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passwords_are_answered() {
        for question in ["pi@10.0.0.7's password: ", "(pi@10.0.0.7) Password: "] {
            assert!(asks_for_password(question), "{question}");
        }
        for question in [
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
            "Enter passphrase for key '/home/me/.ssh/id_rsa': ",
        ] {
            assert!(!asks_for_password(question), "{question}");
        }
    }
}
