//! The folder that a user copies to the device: program, configuration, image, config.json.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::{Machine, OsImage, Vm, cache, exe};

/// Where the folder is put in the guest.
pub const PLACE: &str = "/root/migratecfg";

/// The uuid of the device in the config.json of the tests.
pub const UUID: &str = "0b5e3c9d7a1f42e8b6c4d2a09f8e7d61";

pub struct Migratecfg {
    dir: TempDir,
    settings: Vec<(String, String)>,
    config_json: Vec<u8>,
    program: &'static Path,
}

impl Migratecfg {
    /// The folder for an ordinary migration to `image`: all wifis, nothing else out of the ordinary.
    pub fn new(image: &OsImage) -> Self {
        Migratecfg::with_program(image, exe::balena_migrate())
    }

    /// The same with another executable than that for this machine.
    pub fn with_program(image: &OsImage, program: &'static Path) -> Self {
        let gz = fs::read(image.gz()).expect("reading the compressed image");
        let mut cfg = Migratecfg::empty(program);
        cfg.config_json = config_json(image.slug());
        cfg.file("balena.img.gz", &gz)
            .setting("IMAGE_NAME", "balena.img.gz")
    }

    /// The same, but the image is elsewhere.
    pub fn without_image() -> Self {
        Migratecfg::empty(exe::balena_migrate())
    }

    /// The program is built before there is a machine: others wait for that, and a build takes minutes.
    fn empty(program: &'static Path) -> Self {
        let cfg = Migratecfg {
            program,
            dir: TempDir::new_in(cache::subdir("tmp")).expect("making a directory"),
            settings: Vec::new(),
            config_json: config_json("genericx86-64-ext"),
        };
        cfg.setting("BALENA_CONFIG", "config.json")
            .setting("MIGRATE_ALL_WIFIS", "TRUE")
            // The machines have no network, and config.json is compared byte by byte.
            .setting("BALENA_API_HOST", "")
            .setting("BALENA_VPN_HOST", "")
            .setting("KEEP_NAME", "FALSE")
    }

    /// Sets a variable of balena-migrate.conf.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a file, or replaces one.
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        fs::write(self.dir.path().join(name), content)
            .unwrap_or_else(|e| panic!("writing {name}: {e}"));
        self
    }

    /// With a backup of the user's data.
    pub fn backing_up(self) -> Self {
        self.backup_script("cd /home/user && tar -czf \"$1\" data")
    }

    /// With a backup that a line of shell makes; its `$1` is the file.
    pub fn backup_script(self, line: &str) -> Self {
        const NAME: &str = "backup.sh";
        let cfg = self.file(NAME, format!("#!/bin/sh\n{line}\n").as_bytes());
        make_executable(&cfg.dir.path().join(NAME));
        cfg.setting("BACKUP_SCRIPT", NAME)
    }

    /// The SHA-256 of its config.json.
    pub fn config_json_sha256(&self) -> String {
        cache::sha256_hex(&self.config_json)
    }

    /// Copies it to [`PLACE`] in the guest.
    #[track_caller]
    pub fn send_to(&self, vm: &mut Vm) {
        vm.send(self.complete(), PLACE);
    }

    /// Puts it to [`PLACE`], where the guest has an empty folder, on an ext4 partition of a machine that is
    /// off. Its executables are to be made such there.
    #[track_caller]
    pub fn put_on(&self, machine: &Machine, partition: u32) {
        let disk = machine.disk();
        for file in fs::read_dir(self.complete()).expect("listing the folder") {
            let path = file.expect("listing the folder").path();
            let name = path.file_name().expect("a file").to_string_lossy();
            let content = fs::read(&path).expect("reading a file of the folder");
            disk.write_ext4_file(partition, &format!("{PLACE}/{name}"), &content);
        }
    }

    /// The folder as the operator of a fleet has it: each device gets a config.json of its own.
    pub fn of_a_fleet(&mut self) -> &Path {
        self.settings.retain(|(name, _)| name != "BALENA_CONFIG");
        let dir = self.complete();
        fs::remove_file(dir.join("config.json")).expect("removing config.json");
        dir
    }

    /// The folder with all that belongs in it.
    fn complete(&self) -> &Path {
        let dir = self.dir.path();
        let program = dir.join("balena-migrate");
        fs::copy(self.program, &program).expect("copying the program");
        make_executable(&program);
        fs::write(dir.join("config.json"), &self.config_json).expect("writing config.json");
        let conf: String = self
            .settings
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\"\n"))
            .collect();
        fs::write(dir.join("balena-migrate.conf"), conf).expect("writing balena-migrate.conf");
        dir
    }
}

/// The content of config.json for a device type.
fn config_json(slug: &str) -> Vec<u8> {
    let config = json!({
        "apiEndpoint": "https://api.balena-cloud.com",
        "vpnEndpoint": "vpn.balena-cloud.com",
        "registryEndpoint": "registry2.balena-cloud.com",
        "deviceType": slug,
        "applicationId": 1234567,
        "apiKey": "not-a-real-key-3f9a",
        "appUpdatePollInterval": 900_000,
        "uuid": UUID,
    });
    serde_json::to_vec_pretty(&config).expect("it is plain JSON")
}

fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|e| panic!("making {} executable: {e}", path.display()));
}
