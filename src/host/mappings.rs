//! Device-mapper devices and what they are made of. Called by the collector.
//!
//! The kernel tells tables to root only; without it there are none.

use super::{Below, Mapping, MappingTarget};
use crate::sys::Sys;
use crate::sys::mapper::Target;

/// All mappings whose tables can be read, sorted by name.
pub(super) fn collect(sys: &Sys) -> Vec<Mapping> {
    let names = sys.list("/sys/block").unwrap_or_default();
    names
        .iter()
        .filter(|name| name.starts_with("dm-"))
        .filter_map(|name| mapping(sys, name))
        .collect()
}

fn mapping(sys: &Sys, name: &str) -> Option<Mapping> {
    let numbers = sys.read_text(&format!("/sys/block/{name}/dev")).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    let table = sys.mapper_table(major.parse().ok()?, minor.parse().ok()?);
    Some(Mapping {
        name: name.to_owned(),
        targets: table
            .ok()?
            .into_iter()
            .map(|part| target(sys, part))
            .collect(),
    })
}

fn target(sys: &Sys, target: Target) -> MappingTarget {
    let below = target.below.and_then(|(numbers, start)| {
        let folder = sys.canonical(&format!("/sys/dev/block/{numbers}")).ok()?;
        let (_, name) = folder.rsplit_once('/')?;
        Some(Below {
            name: name.to_owned(),
            start,
        })
    });
    MappingTarget {
        start: target.start,
        bytes: target.bytes,
        kind: target.kind,
        below,
    }
}
