//! The folder migratecfg goes to a device: only what is not there yet, and on from where a cut
//! connection ended.
//!
//! Small files go as one compressed archive, with their checksums as the last file of it. Large files
//! go one by one: each is appended to a part, which gets its name once its checksum is right.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::shell::quote;
use crate::payload::digest::Sha256Writer;
use crate::sys::Sys;
use crate::sys::call::Answer;

use super::facts::{FOLDER, Facts, PART};
use super::material::Item;
use super::ssh::{Ssh, SshError};
use super::throttle::{Throttle, Throttled};

/// From this size on a file is sent by itself, and goes on after a cut.
const LARGE: u64 = 1 << 20;

/// The list of checksums in the archive.
const SUMS: &str = ".migdb-sums";

/// Why the files are not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The connection, or its time.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The device could not take them.
    #[error("{0}")]
    There(String),
    /// They have changed here, or can't be read.
    #[error("{0}")]
    Here(String),
    /// They do not fit.
    #[error("{needed} bytes have to be sent, and the home folder there has {free} free")]
    NoSpace {
        /// Bytes to send.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
}

/// What has to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<'a> {
    small: Vec<&'a Item>,
    /// With the bytes that are there already.
    large: Vec<(&'a Item, u64)>,
}

impl<'a> Plan<'a> {
    /// Compares what is wanted with what is there. Whether a part is the beginning of a file is seen
    /// by its checksum.
    pub fn new(sys: &Sys, wanted: &[&'a Item], facts: &Facts) -> Result<Plan<'a>, TransferError> {
        let mut plan = Plan {
            small: Vec::new(),
            large: Vec::new(),
        };
        for &item in wanted {
            if facts
                .files
                .get(&item.name)
                .is_some_and(|there| there.sha256 == item.sha256)
            {
                continue;
            }
            if item.bytes < LARGE {
                plan.small.push(item);
                continue;
            }
            let there = match facts.files.get(&format!("{}{PART}", item.name)) {
                Some(part) if part.bytes <= item.bytes => {
                    let begins =
                        hash_of_first(sys, &item.path, part.bytes).map_err(|e| here(item, &e))?;
                    if begins == part.sha256 { part.bytes } else { 0 }
                }
                _ => 0,
            };
            plan.large.push((item, there));
        }
        let (needed, free) = (plan.bytes(), facts.free.unwrap_or(u64::MAX));
        match needed > free {
            true => Err(TransferError::NoSpace { needed, free }),
            false => Ok(plan),
        }
    }

    /// Bytes to send, before compression.
    pub fn bytes(&self) -> u64 {
        let small: u64 = self.small.iter().map(|item| item.bytes).sum();
        let large: u64 = self
            .large
            .iter()
            .map(|(item, there)| item.bytes - there)
            .sum();
        small + large
    }

    /// Whether all is there already.
    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Sends it within `limit`, for all of it together. `sent` gets the bytes that each step has sent.
    pub fn send(
        &self,
        sys: &Sys,
        ssh: &Ssh,
        limit: Duration,
        throttle: Option<&Throttle>,
        sent: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), TransferError> {
        let until = Instant::now() + limit;
        if !self.small.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            send_small(sys, ssh, &self.small, left, throttle)?;
            sent(self.small.iter().map(|item| item.bytes).sum());
        }
        for (item, there) in &self.large {
            let left = until.saturating_duration_since(Instant::now());
            send_large(sys, ssh, item, *there, left, throttle, sent)?;
        }
        Ok(())
    }
}

/// Sends a file that is made here, such as a config.json; only its owner may read it there.
pub fn send_bytes(
    ssh: &Ssh,
    name: &str,
    bytes: &[u8],
    limit: Duration,
) -> Result<(), TransferError> {
    let new = quote(&format!("{name}{PART}"));
    let command = in_folder(&format!(
        "umask 077 && cat > {new} && mv {new} {}",
        quote(name)
    ));
    let mut feed = |to: &mut dyn Write| to.write_all(bytes);
    let answer = ssh.run(
        &format!("sending {name}"),
        &command,
        limit,
        Some(&mut feed),
        &mut |_| {},
    )?;
    there(answer, name)
}

fn send_small(
    sys: &Sys,
    ssh: &Ssh,
    items: &[&Item],
    limit: Duration,
    throttle: Option<&Throttle>,
) -> Result<(), TransferError> {
    let command = in_folder(&format!(
        "tar -xzf - && sha256sum -c {SUMS} > /dev/null && rm {SUMS}"
    ));
    let mut feed = |to: &mut dyn Write| archive(sys, items, Throttled::new(to, throttle));
    let answer = ssh.run(
        "the transfer",
        &command,
        limit,
        Some(&mut feed),
        &mut |_| {},
    )?;
    there(answer, "the files")
}

fn archive(sys: &Sys, items: &[&Item], to: Throttled<'_>) -> io::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(to, Compression::default()));
    let mut sums = String::new();
    for item in items {
        let mut file = sys.open(&item.path)?;
        append(&mut tar, &item.name, item.bytes, item.mode, &mut file)?;
        sums.push_str(&format!("{}  {}\n", item.sha256, item.name));
    }
    append(
        &mut tar,
        SUMS,
        sums.len() as u64,
        0o600,
        &mut sums.as_bytes(),
    )?;
    tar.into_inner()?.finish()?.flush()
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    bytes: u64,
    mode: u32,
    content: &mut dyn Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    // Some of it is secret, and all of it is only for who runs it.
    header.set_mode(mode & 0o700);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content)
}

fn send_large(
    sys: &Sys,
    ssh: &Ssh,
    item: &Item,
    there_already: u64,
    limit: Duration,
    throttle: Option<&Throttle>,
    sent: &mut (dyn FnMut(u64) + Send),
) -> Result<(), TransferError> {
    let mut file = sys.open(&item.path).map_err(|error| here(item, &error))?;
    let packs =
        there_already < item.bytes && packs(&mut file).map_err(|error| here(item, &error))?;
    let (part, name) = (quote(&format!("{}{PART}", item.name)), quote(&item.name));
    let folder = match item.name.rsplit_once('/') {
        Some((folder, _)) => format!("mkdir -p {} && ", quote(folder)),
        None => String::new(),
    };
    let unpack = if packs { "gzip -dc" } else { "cat" };
    let into = if there_already > 0 { ">>" } else { ">" };
    let command = in_folder(&format!(
        "{folder}{unpack} {into} {part} && case $(sha256sum {part}) in {}*) chmod {:o} {part} && mv {part} \
         {name};; *) rm {part}; echo it arrived damaged >&2; exit 65;; esac",
        item.sha256,
        item.mode & 0o700
    ));
    let mut feed = |to: &mut dyn Write| {
        file.seek(SeekFrom::Start(there_already))?;
        let to = Throttled::new(to, throttle);
        match packs {
            true => {
                let mut packer = GzEncoder::new(to, Compression::fast());
                pass_on(&mut file, &mut packer, sent)?;
                packer.finish()?.flush()
            }
            false => pass_on(&mut file, to, sent),
        }
    };
    let what = format!("sending {}", item.name);
    let answer = ssh.run(&what, &command, limit, Some(&mut feed), &mut |_| {})?;
    there(answer, &item.name)
}

fn pass_on(from: &mut File, mut to: impl Write, sent: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.flush(),
            read => {
                to.write_all(&buffer[..read])?;
                sent(read as u64);
            }
        }
    }
}

/// Whether a file gets noticeably smaller by packing, tried on its beginning. Images are packed already.
fn packs(file: &mut File) -> io::Result<bool> {
    let mut sample = Vec::new();
    file.take(1 << 18).read_to_end(&mut sample)?;
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(&sample)?;
    let packed = packer.finish()?;
    Ok(packed.len() * 10 < sample.len() * 9)
}

fn hash_of_first(sys: &Sys, path: &str, bytes: u64) -> io::Result<String> {
    let mut digest = Sha256Writer::default();
    io::copy(&mut sys.open(path)?.take(bytes), &mut digest)?;
    Ok(digest.hex())
}

/// A command in the folder on the device, for whatever shell the user has there.
fn in_folder(script: &str) -> String {
    let script = format!("mkdir -p {FOLDER} && chmod 700 {FOLDER} && cd {FOLDER} && {script}");
    format!("exec sh -c {}", quote(&script))
}

fn there(answer: Answer, what: &str) -> Result<(), TransferError> {
    match answer.code {
        Some(0) => Ok(()),
        code => Err(TransferError::There(format!(
            "the device could not take {what}: {}",
            match answer.complaint() {
                Some(line) => line.to_owned(),
                None => format!("exit code {}", code.unwrap_or(-1)),
            }
        ))),
    }
}

fn here(item: &Item, error: &io::Error) -> TransferError {
    TransferError::Here(format!("reading {}: {error}", item.path))
}
