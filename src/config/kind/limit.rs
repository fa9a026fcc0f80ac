//! Kinds of value that set a limit: write speed, bad blocks, seconds.

use std::fmt;

use super::{Kind, Refusal, number, refuse};

/// How fast a disk writes, in kB of 1024 bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(pub u64);

impl Kind for Speed {
    const SYNTAX: &'static str = "a number of kB a second";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match number(text) {
            Some(kb) => Ok(Speed(kb)),
            None => refuse(
                format!("is `{text}`, which is no number of kB a second"),
                "write digits only, such as 2000",
            ),
        }
    }
}

/// How many bad blocks a disk may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadBlocks {
    /// So many.
    Blocks(u64),
    /// So many of a hundred.
    Percent(u64),
}

impl BadBlocks {
    /// How many of `blocks` blocks.
    pub fn of(self, blocks: u64) -> u64 {
        match self {
            BadBlocks::Blocks(limit) => limit,
            BadBlocks::Percent(percent) => (u128::from(blocks) * u128::from(percent) / 100) as u64,
        }
    }
}

impl fmt::Display for BadBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadBlocks::Blocks(limit) => write!(f, "{limit}"),
            BadBlocks::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Kind for BadBlocks {
    const SYNTAX: &'static str = "a number of blocks, or a percentage such as 1%";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        let read = match text.strip_suffix('%') {
            Some(percent) => number(percent)
                .filter(|&percent| percent <= 100)
                .map(BadBlocks::Percent),
            None => number(text).map(BadBlocks::Blocks),
        };
        match read {
            Some(limit) => Ok(limit),
            None => refuse(
                format!("is `{text}`, which is neither a number nor a percentage"),
                "write a number such as 0, or a percentage up to 100%",
            ),
        }
    }
}

/// A time to wait at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub u64);

/// Ten minutes: more is a slip of the finger rather than a wish.
const MAX_SECONDS: u64 = 600;

impl Kind for Seconds {
    const SYNTAX: &'static str = "a number of seconds, 1 to 600";

    fn read(text: &str, _: &str) -> Result<Self, Refusal> {
        match number(text).filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) {
            Some(seconds) => Ok(Seconds(seconds)),
            None => refuse(
                format!("is `{text}`, which is no number of seconds from 1 to {MAX_SECONDS}"),
                "write a number such as 20",
            ),
        }
    }
}
