//! A fleet in a temporary folder, and the program in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use balena_migrate::fleet::moment::Moment;
use balena_migrate::fleet::store::directory::Directory;
use balena_migrate::fleet::store::{Claim, Claimed, State, Store};
use balena_migrate::fleet::unit::Unit;

/// The folder, gone at the end.
pub struct Fleet {
    dir: tempfile::TempDir,
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Fleet {
    pub fn new() -> Fleet {
        Fleet {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn open(&self) -> Directory {
        Directory::open(self.path().to_str().unwrap()).unwrap()
    }

    /// The program, in this folder, with no setting of the environment but the path.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migdb"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap());
        command
    }

    pub fn migdb(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().unwrap())
    }

    /// As [`Fleet::migdb`], for what has to succeed; gives what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let ended = self.migdb(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.out
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Names in a folder of the store, sorted.
    pub fn names(&self, state: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path().join("db").join(state))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The only file in a state, as text.
    pub fn only(&self, state: &str) -> String {
        let names = self.names(state);
        assert_eq!(names.len(), 1, "{state}: {names:?}");
        fs::read_to_string(self.path().join("db").join(state).join(&names[0])).unwrap()
    }
}

pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn unit(id: &str) -> Unit {
    Unit::new(id, Moment::now()).unwrap()
}

/// Takes any unit of a state that is due now.
pub fn claim(store: &dyn Store, from: State) -> Option<Claim> {
    match store.claim(from, Moment::now(), &|_| true).unwrap() {
        Claimed::Unit(claim) => Some(claim),
        _ => None,
    }
}
