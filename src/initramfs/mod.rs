//! Builds the initramfs of stage 2: this executable as `/init`, the hand-over, small files, and the
//! kernel modules that reach the disks. Called by the planner, which writes the recipe, and by the
//! engine, which has it built.
//!
//! It takes no tool of the distribution, and the archive depends on nothing but what goes into it.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};

use anyhow::Context;
use flate2::write::GzEncoder;

use crate::handover;
use crate::secret::Secret;
use crate::sys::Sys;

mod cpio;
pub mod decompress;
pub mod modules;
pub mod tool;

use modules::ModuleFile;

/// Folders that stage 2 finds: where it mounts, and where its files are.
const FOLDERS: [&str; 6] = ["/dev", "/mnt", "/proc", "/run", "/sys", "/tmp"];

/// The devices that `/init` needs before it can have mounted a devtmpfs: the console, which the
/// kernel opens as its standard streams (`console_on_rootfs` in init/main.c), and what Rust's
/// runtime opens in their place when there is no console.
const DEVICES: [(&str, u32, (u32, u32)); 2] = [
    ("/dev/console", 0o600, (5, 1)),
    ("/dev/null", 0o666, (1, 3)),
];

/// What goes into an initramfs besides the hand-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The folder that everything goes into: nothing, or a path with a leading `/` where a tool of the
    /// distribution has the rest.
    pub root: &'static str,
    /// The file that becomes `/init`; `/proc/self/exe` is this executable.
    pub executable: String,
    /// Modules in the order in which they are loaded.
    pub modules: Vec<ModuleFile>,
    /// Files by their paths in the initramfs.
    pub files: Vec<SmallFile>,
    /// How to compress it.
    pub compression: Compression,
}

/// A file of the initramfs that is made here. All of them have mode 0600.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallFile {
    /// Path in the initramfs, with a leading `/`; its folders are made.
    pub path: String,
    /// Its content: keys, old boot configuration.
    pub content: Secret,
}

/// How an initramfs is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, which every kernel takes.
    None,
    /// gzip, at its fastest.
    Gzip,
}

impl Compression {
    /// The best one that a kernel with these formats (`Kernel::initramfs_formats`) unpacks.
    pub fn best(formats: Option<&[String]>) -> Compression {
        match formats {
            Some(formats) if formats.iter().any(|format| format == "gzip") => Compression::Gzip,
            _ => Compression::None,
        }
    }
}

/// Paths of the modules in the initramfs, in load order, for the hand-over.
pub fn module_paths(modules: &[ModuleFile]) -> Vec<String> {
    let numbered = modules.iter().enumerate();
    numbered
        .map(|(index, module)| format!("/lib/modules/{index:03}-{}.ko", module.name))
        .collect()
}

/// Builds the initramfs as the file `path`, mode 0600, around the bytes of the hand-over.
pub fn build(sys: &Sys, recipe: &Recipe, handover: &[u8], path: &str) -> anyhow::Result<()> {
    sys.write_with(path, 0o600, None, |file| {
        write(sys, recipe, handover, BufWriter::new(file))?.flush()
    })?;
    Ok(())
}

/// Bytes that the initramfs will have, by making it and throwing it away.
///
/// The real one differs by no more than its hand-over does.
pub fn measure(sys: &Sys, recipe: &Recipe, handover: &[u8]) -> anyhow::Result<u64> {
    let counted = write(sys, recipe, handover, Counter(0)).context("measuring the initramfs")?;
    Ok(counted.0)
}

/// Files alone, as an archive that goes before an initramfs.
pub fn archive(files: &[SmallFile]) -> io::Result<Vec<u8>> {
    let mut folders = BTreeSet::new();
    for file in files {
        add_folders(&mut folders, &file.path);
    }
    let mut archive = cpio::Archive::new(Vec::new());
    for folder in folders {
        archive.folder(&folder, 0o755)?;
    }
    for file in files {
        let content = file.content.expose();
        archive.file(&file.path, 0o600, content.len() as u64, content)?;
    }
    archive.finish()
}

/// Writes the whole initramfs.
fn write<W: Write>(sys: &Sys, recipe: &Recipe, handover: &[u8], out: W) -> io::Result<W> {
    match recipe.compression {
        Compression::None => fill(sys, recipe, handover, cpio::Archive::new(out)),
        Compression::Gzip => {
            let packed = GzEncoder::new(out, flate2::Compression::fast());
            fill(sys, recipe, handover, cpio::Archive::new(packed))?.finish()
        }
    }
}

/// Puts everything into the archive and ends it.
fn fill<W: Write>(
    sys: &Sys,
    recipe: &Recipe,
    handover: &[u8],
    mut archive: cpio::Archive<W>,
) -> io::Result<W> {
    let module_paths = module_paths(&recipe.modules);
    let inside = |path: &str| format!("{}{path}", recipe.root);
    for folder in folders(recipe, &module_paths) {
        archive.folder(&folder, 0o755)?;
    }
    for (path, mode, number) in DEVICES {
        archive.char_device(&inside(path), mode, number)?;
    }

    let executable = &recipe.executable;
    let size = sys.meta(executable).map_err(named(executable))?.bytes;
    let file = sys.open(executable).map_err(named(executable))?;
    archive.file(&inside("/init"), 0o755, size, file)?;

    let bytes = handover.len() as u64;
    archive.file(&inside(handover::PATH), 0o600, bytes, handover)?;
    for small in &recipe.files {
        let content = small.content.expose();
        archive.file(&inside(&small.path), 0o600, content.len() as u64, content)?;
    }
    for (module, path) in recipe.modules.iter().zip(&module_paths) {
        let packed = sys.read(&module.path).map_err(named(&module.path))?;
        let content = decompress::module(&module.path, packed).map_err(named(&module.path))?;
        archive.file(&inside(path), 0o644, content.len() as u64, &content[..])?;
    }
    archive.finish()
}

/// All folders, each before those in it.
fn folders(recipe: &Recipe, module_paths: &[String]) -> BTreeSet<String> {
    let inside = |path: &str| format!("{}{path}", recipe.root);
    let mut folders: BTreeSet<String> = FOLDERS.map(inside).into();
    let files = recipe.files.iter().map(|file| &file.path);
    let paths = files.chain(module_paths).map(String::as_str);
    for path in paths.chain([handover::PATH, "/init"]) {
        add_folders(&mut folders, &inside(path));
    }
    folders
}

/// Adds the folders that a path is in.
fn add_folders(folders: &mut BTreeSet<String>, mut path: &str) {
    while let Some((folder, _)) = path.rsplit_once('/').filter(|(rest, _)| !rest.is_empty()) {
        folders.insert(folder.to_owned());
        path = folder;
    }
}

/// Puts the file into an error about it.
fn named(path: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("reading {path}: {error}"))
}

/// Counts what is written to it.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A machine with an executable and two modules, and a recipe for them.
    fn machine() -> (tempfile::TempDir, Sys, Recipe) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tool"), b"executable").unwrap();
        std::fs::write(dir.path().join("a.ko"), b"\x7fELF a").unwrap();
        let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(b"\x7fELF b").unwrap();
        std::fs::write(dir.path().join("b.ko.gz"), packed.finish().unwrap()).unwrap();
        let module = |name: &str, path: &str| ModuleFile {
            name: name.into(),
            path: path.into(),
        };
        let recipe = Recipe {
            root: "",
            executable: "/tool".into(),
            modules: vec![module("b", "/b.ko.gz"), module("a", "/a.ko")],
            files: vec![SmallFile {
                path: "/balena-migrate/old/grubenv".into(),
                content: Secret::new(*b"env"),
            }],
            compression: Compression::None,
        };
        let sys = Sys::new(dir.path());
        (dir, sys, recipe)
    }

    #[test]
    fn everything_is_where_stage_2_looks() {
        let (_dir, sys, recipe) = machine();
        build(&sys, &recipe, b"{}", "/initramfs").unwrap();
        assert_eq!(sys.meta("/initramfs").unwrap().mode, 0o600);
        let entries = cpio::tests::entries(&sys.read("/initramfs").unwrap());
        let file = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name).unwrap();
            (entry.mode & 0o7777, entry.content.clone())
        };
        assert_eq!(file("init"), (0o755, b"executable".to_vec()));
        assert_eq!(file("etc/balena-migrate-stage2.conf").1, b"{}");
        assert_eq!(file("balena-migrate/old/grubenv"), (0o600, b"env".to_vec()));
        let paths = module_paths(&recipe.modules);
        assert_eq!(paths, ["/lib/modules/000-b.ko", "/lib/modules/001-a.ko"]);
        assert_eq!(file(&paths[0][1..]).1, b"\x7fELF b");
        assert_eq!(file(&paths[1][1..]).1, b"\x7fELF a");
        assert_eq!(file("dev/console").0, 0o600);
        assert_eq!(file("dev/null").0, 0o666);
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let (_dir, sys, mut recipe) = machine();
        for root in ["", "/balena-migrate/root"] {
            recipe.root = root;
            build(&sys, &recipe, b"{}", "/initramfs").unwrap();
            let mut seen = BTreeSet::from([String::new()]);
            for entry in cpio::tests::entries(&sys.read("/initramfs").unwrap()) {
                let folder = entry.name.rsplit_once('/').map_or("", |(folder, _)| folder);
                assert!(seen.contains(folder), "{}", entry.name);
                assert!(seen.insert(entry.name));
            }
        }
    }

    #[test]
    fn beside_another_initramfs_all_is_in_one_folder() {
        let (_dir, sys, mut recipe) = machine();
        build(&sys, &recipe, b"{}", "/plain").unwrap();
        recipe.root = "/balena-migrate/root";
        build(&sys, &recipe, b"{}", "/hooked").unwrap();
        let contents = |path: &str, root: &str| {
            let entries = cpio::tests::entries(&sys.read(path).unwrap()).into_iter();
            let inside = |entry: cpio::tests::Entry| {
                let name = entry.name.strip_prefix(root)?.to_owned();
                Some((name, entry.mode, entry.device, entry.content))
            };
            entries.filter_map(inside).collect::<Vec<_>>()
        };
        let hooked = contents("/hooked", "balena-migrate/root/");
        assert_eq!(hooked, contents("/plain", ""));
        // And the two folders on the way there.
        let all = cpio::tests::entries(&sys.read("/hooked").unwrap());
        assert_eq!(all.len(), hooked.len() + 2);
    }

    #[test]
    fn gzip_holds_the_same_archive_and_both_are_measured() {
        let (_dir, sys, mut recipe) = machine();
        build(&sys, &recipe, b"{}", "/plain").unwrap();
        let plain = sys.read("/plain").unwrap();
        assert_eq!(measure(&sys, &recipe, b"{}").unwrap(), plain.len() as u64);
        recipe.compression = Compression::Gzip;
        build(&sys, &recipe, b"{}", "/packed").unwrap();
        let packed = sys.read("/packed").unwrap();
        assert_eq!(measure(&sys, &recipe, b"{}").unwrap(), packed.len() as u64);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert!(unpacked == plain);
    }

    #[test]
    fn a_missing_module_file_is_named_and_leaves_nothing() {
        let (dir, sys, recipe) = machine();
        std::fs::remove_file(dir.path().join("a.ko")).unwrap();
        let error = build(&sys, &recipe, b"{}", "/initramfs").unwrap_err();
        assert!(format!("{error:#}").contains("/a.ko"), "{error:#}");
        assert_eq!(sys.list("/").unwrap(), ["b.ko.gz", "tool"]);
    }

    #[test]
    fn gzip_only_where_the_kernel_has_it() {
        let formats = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(Compression::best(None), Compression::None);
        assert_eq!(
            Compression::best(Some(&formats(&["xz"]))),
            Compression::None
        );
        let debian = formats(&["xz", "gzip"]);
        assert_eq!(Compression::best(Some(&debian)), Compression::Gzip);
    }
}
