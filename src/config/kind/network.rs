//! Kinds of value about the network: hosts, ports, keyfiles, names of wifi networks.

use super::{HomeFile, Kind, Refusal, number, refuse};

/// The name or the address of a host on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(pub String);

impl Kind for HostName {
    const SYNTAX: &'static str = "the name of a host";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        if text.contains("//") {
            return refuse(
                format!("is `{text}`, a web address"),
                "write the name of the host only, such as api.balena-cloud.com",
            );
        }
        // Colons are those of an IPv6 address.
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        match text.chars().all(is_name) {
            true => Ok(HostName(text.into())),
            false => refuse(
                format!("is `{text}`, which is no name of a host"),
                "write a name such as api.balena-cloud.com",
            ),
        }
    }
}

/// A port of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub u16);

impl Kind for Port {
    const SYNTAX: &'static str = "a port, 1 to 65535";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match number(text).and_then(|port| u16::try_from(port).ok()) {
            Some(port) if port > 0 => Ok(Port(port)),
            _ => refuse(
                format!("is `{text}`, which is no port"),
                "write a number from 1 to 65535",
            ),
        }
    }
}

/// Files of the working folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HomeFiles(pub Vec<HomeFile>);

impl Kind for HomeFiles {
    const SYNTAX: &'static str =
        "files, relative to HOME_DIR, with blanks between them, or one on a line";
    const BLANK_IS_NONE: bool = true;

    fn read(text: &str, home: &str) -> Result<Self, Refusal> {
        let names: Vec<&str> = match text.contains('\n') {
            true => lines(text).collect(),
            false => text.split_whitespace().collect(),
        };
        let files = names.into_iter().map(|name| HomeFile::read(name, home));
        files.collect::<Result<_, _>>().map(HomeFiles)
    }
}

/// Names of wifi networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssids(pub Vec<String>);

impl Kind for Ssids {
    const SYNTAX: &'static str = "names of wifi networks, one on a line";
    const BLANK_IS_NONE: bool = true;

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        Ok(Ssids(lines(text).map(str::to_owned).collect()))
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty())
}

/// How many of the names resin-wifi-01, -02 … the image has in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenNames(pub u32);

/// Names have two digits; some are left for the networks of the device.
const MAX_TAKEN: u64 = 50;

impl Kind for TakenNames {
    const SYNTAX: &'static str = "TRUE (1), FALSE (0) or a number up to 50";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(TakenNames(1)),
            "false" | "no" | "off" => Ok(TakenNames(0)),
            digits => match number(digits).filter(|&taken| taken <= MAX_TAKEN) {
                Some(taken) => Ok(TakenNames(taken as u32)),
                None => refuse(
                    format!("is `{text}`, which is neither TRUE, FALSE nor a number up to 50"),
                    "write how many resin-wifi files the image has inside",
                ),
            },
        }
    }
}
