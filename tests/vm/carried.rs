//! What a machine with more to it than the plain road's takes along: a zip image, an office network,
//! a fixed address on the wire, volumes by a definition, its name.

use std::process::Command;

use crate::harness::{Migratecfg, OsImage, tool};
use crate::scenarios::{RUN, Scene};

/// What the old machine is configured with, besides what every guest has.
const CONFIGURE: &str = r#"
mkdir -p /etc/ssl/office && printf -- '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n' > /etc/ssl/office/ca.pem
cat >> /etc/wpa_supplicant/wpa_supplicant.conf <<'EOF'
network={
	ssid="campus"
	key_mgmt=WPA-EAP
	eap=PEAP
	identity="printer-7"
	password="between the lines"
	ca_cert="/etc/ssl/office/ca.pem"
	phase2="auth=MSCHAPV2"
}
EOF
mkdir -p /etc/network
cat > /etc/network/interfaces <<'EOF'
auto lo
iface lo inet loopback
auto eth0
iface eth0 inet static
	address 192.0.2.7/24
	gateway 192.0.2.1
	dns-nameservers 192.0.2.53
EOF
"#;

const DEFINITION: &str = "\
- volume: papers
  items:
    - source: /home/user/data
      target: old
    - source: /etc
      target: names
      filter: '^host(name|s)$'
";

#[test]
fn a_zip_an_office_network_a_fixed_address_and_a_definition_are_carried() {
    let image = OsImage::get();
    let zip = tempfile::tempdir().expect("making a directory");
    let zip = zip.path().join("balena.img.zip");
    tool::run(
        Command::new("zip")
            .args(["-q", "-1", "-j"])
            .arg(&zip)
            .arg(image.raw()),
    );
    let cfg = Migratecfg::new(&image)
        .file(
            "balena.img.zip",
            &std::fs::read(&zip).expect("reading the zip"),
        )
        .file("backup.yml", DEFINITION.as_bytes())
        .setting("IMAGE_NAME", "balena.img.zip")
        .setting("BACKUP_DEFINITION", "backup.yml")
        .setting("KEEP_NAME", "TRUE");
    let mut scene = Scene::set("carried", &cfg);
    scene.vm.must(CONFIGURE);
    let mac = scene.vm.must("cat /sys/class/net/eth0/address");
    let plan = scene.run("./balena-migrate plan", 0);
    assert!(plan.contains("balena.img.zip"), "{plan}");
    scene.run(&format!("{RUN} -r 3"), 0);
    let mut vm = scene.vm;
    vm.wait_reboot();
    vm.wait_for("NEWOS: booted");
    vm.wait_for("NEWOS: done");
    let report = vm.console();
    let machine = vm.wait_off();
    let disk = machine.disk();
    assert!(
        report.contains(" papers/names/hostname papers/names/hosts"),
        "{report}"
    );
    assert!(report.contains("papers/old/greeting"), "{report}");

    let file = |path: &str| {
        let bytes = disk
            .fat_file(1, path)
            .unwrap_or_else(|| panic!("no {path}"));
        String::from_utf8(bytes).expect("it is text")
    };
    let config: serde_json::Value =
        serde_json::from_str(&file("/config.json")).expect("config.json is JSON");
    assert_eq!(config["hostname"], "old-debian");
    let office = file("/system-connections/resin-wifi-03");
    for line in [
        "ssid=campus\n",
        "identity=printer-7\n",
        "password=between the lines\n",
        "key-mgmt=wpa-eap\n",
    ] {
        assert!(office.contains(line), "{line} is missing:\n{office}");
    }
    let wire = file("/system-connections/resin-ethernet-01");
    for line in [
        "192.0.2.7/24,192.0.2.1\n",
        "dns=192.0.2.53;\n",
        "method=manual\n",
    ] {
        assert!(wire.contains(line), "{line} is missing:\n{wire}");
    }
    let bound = format!("mac-address={}", mac.trim()).to_lowercase();
    assert!(
        wire.to_lowercase().contains(&bound),
        "{bound} is missing:\n{wire}"
    );
}
