//! Keeps what is slow to build, keyed by the text of its recipe.
//!
//! An artefact is a directory `NAME-KEY`. It is filled under a temporary name and then renamed, so
//! that it is either complete or absent, and a file lock keeps two processes from building it twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use balena_migrate::payload::digest::sha256_hex;
use nix::fcntl::{Flock, FlockArg};

/// Where artefacts live: `$BALENA_MIGRATE_CACHE`, else `~/.cache/balena-migrate`.
pub fn dir() -> PathBuf {
    let dir = std::env::var_os("BALENA_MIGRATE_CACHE").map_or_else(
        || {
            let home = std::env::var_os("HOME").expect("HOME is not set");
            PathBuf::from(home).join(".cache/balena-migrate")
        },
        PathBuf::from,
    );
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("creating {}: {e}", dir.display()));
    dir.canonicalize()
        .unwrap_or_else(|e| panic!("finding {}: {e}", dir.display()))
}

/// A subdirectory of the cache that is not an artefact.
pub fn subdir(name: &str) -> PathBuf {
    let dir = dir().join(name);
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("creating {}: {e}", dir.display()));
    dir
}

/// The directory of artefact `name`, built by `build` unless one made by the same `recipe` is there.
///
/// `recipe` is everything that decides the content: scripts, options, versions.
pub fn artefact(name: &str, recipe: &str, build: impl FnOnce(&Path)) -> PathBuf {
    let key = &sha256_hex(recipe.as_bytes())[..KEY];
    let finished = dir().join(format!("{name}-{key}"));
    if finished.exists() {
        return finished;
    }
    let _guard = lock(&format!("{name}.lock"));
    if finished.exists() {
        return finished;
    }
    let unfinished = dir().join(format!("{name}-{key}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .unwrap_or_else(|e| panic!("removing {}: {e}", unfinished.display()));
    }
    fs::create_dir(&unfinished)
        .unwrap_or_else(|e| panic!("creating {}: {e}", unfinished.display()));
    eprintln!("bench: building {name} into {}", finished.display());
    let start = Instant::now();
    build(&unfinished);
    fs::rename(&unfinished, &finished)
        .unwrap_or_else(|e| panic!("renaming {}: {e}", unfinished.display()));
    forget_old(name);
    eprintln!(
        "bench: built {name} in {:.1} s",
        start.elapsed().as_secs_f32()
    );
    finished
}

/// Characters of a key.
const KEY: usize = 12;

fn is_key(text: &str) -> bool {
    text.len() == KEY && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes all artefacts of `name` but the newest two: a guest takes half a gigabyte, and the one
/// before may belong to another checkout that is in use.
fn forget_old(name: &str) {
    let mut made: Vec<_> = fs::read_dir(dir())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let file_name = entry.file_name();
            let key = file_name.to_str().and_then(|file| file.strip_prefix(name));
            let key = key.and_then(|rest| rest.strip_prefix('-'));
            // Another artefact's name may begin like this one.
            key.is_some_and(is_key) && entry.path().is_dir()
        })
        .map(|entry| {
            (
                entry.metadata().and_then(|meta| meta.modified()).ok(),
                entry.path(),
            )
        })
        .collect();
    made.sort();
    made.reverse();
    for (_, old) in made.into_iter().skip(2) {
        // What can't be removed only takes room.
        let _ = fs::remove_dir_all(old);
    }
}

/// Takes the lock file `name` of the cache, waiting for whoever has it.
pub fn lock(name: &str) -> Flock<File> {
    let path = dir().join(name);
    let open = || {
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|e| panic!("opening {}: {e}", path.display()))
    };
    if let Ok(guard) = Flock::lock(open(), FlockArg::LockExclusiveNonblock) {
        return guard;
    }
    eprintln!("bench: waiting for another user of {}", path.display());
    Flock::lock(open(), FlockArg::LockExclusive)
        .unwrap_or_else(|(_, e)| panic!("locking {}: {e}", path.display()))
}
