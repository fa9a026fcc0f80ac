//! The keyfile of a connection.
//!
//! Called by [`super::carry`]. There is no uuid and no interface name in it: NetworkManager makes
//! the first from the file's name, and names may be different in the new system. What has to be on a
//! certain wire is bound by its hardware address.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::ip::{Family, Ip, Method};
use super::keyfile::{Document, escape};
use super::model::{Connection, Device, Eap, Link, Security, Vlan, Wifi};
use crate::secret::Secret;

/// The keyfile of a connection, under the name `name`.
pub fn write(connection: &Connection, name: &str) -> Secret {
    let mut file = Document::default();
    file.put("connection", "id", &escape(name));
    let type_name = match &connection.link {
        Link::Wifi(_) => "wifi",
        Link::Ethernet(_) => "ethernet",
        Link::Vlan(_) => "vlan",
        Link::Gsm => "gsm",
    };
    file.put("connection", "type", type_name);
    if let Some(priority) = connection.priority {
        file.put("connection", "autoconnect-priority", &priority.to_string());
    }
    match &connection.link {
        Link::Wifi(wifi) => put_wifi(&mut file, wifi),
        Link::Ethernet(ethernet) => {
            put_device(&mut file, &ethernet.device);
            if let Some(eap) = &ethernet.eap {
                put_eap(&mut file, eap);
            }
        }
        Link::Vlan(vlan) => put_vlan(&mut file, vlan, name),
        Link::Gsm => {}
    }
    for kept in &connection.kept {
        file.put(&kept.group, &kept.key, &kept.written());
    }
    put_ip(&mut file, &connection.ip);
    Secret::new(file.to_text())
}

fn put_wifi(file: &mut Document, wifi: &Wifi) {
    file.put("wifi", "mode", "infrastructure");
    file.put("wifi", "ssid", &write_ssid(&wifi.ssid));
    if wifi.hidden {
        file.put("wifi", "hidden", "true");
    }
    let (key_mgmt, key) = match &wifi.security {
        Security::Open => return,
        Security::Owe => ("owe", None),
        Security::WpaPsk(key) => ("wpa-psk", Some(key)),
        Security::Sae(key) => ("sae", Some(key)),
        Security::Eap(_) => ("wpa-eap", None),
    };
    file.put("wifi-security", "key-mgmt", key_mgmt);
    if let Some(key) = key {
        let key = String::from_utf8_lossy(key.expose());
        file.put("wifi-security", "psk", &escape(&key));
    }
    if let Security::Eap(eap) = &wifi.security {
        put_eap(file, eap);
    }
}

/// Certificates go into the keyfile itself: the files of the old system will not exist.
fn put_eap(file: &mut Document, eap: &Eap) {
    for setting in &eap.settings {
        file.put(&setting.group, &setting.key, &setting.written());
    }
    for certificate in &eap.certificates {
        if let Some(content) = &certificate.content {
            let encoded = STANDARD.encode(content.expose());
            let value = format!("data:;base64,{encoded}");
            file.put("802-1x", certificate.key, &value);
        }
    }
}

fn put_device(file: &mut Document, device: &Device) {
    if let Device::Mac(mac) = device {
        file.put("ethernet", "mac-address", mac);
    }
}

/// Without `parent`, NetworkManager looks for the parent by the hardware address. The new device
/// has to be named by the file, as it can't be named after a parent that is not known by name; one
/// tag may be used on two wires, so the file's own name is taken.
fn put_vlan(file: &mut Document, vlan: &Vlan, name: &str) {
    file.put("connection", "interface-name", name);
    file.put("vlan", "id", &vlan.id.to_string());
    put_device(file, &vlan.parent);
}

/// Writes the families that no kept setting has written.
fn put_ip(file: &mut Document, ip: &Ip) {
    if !file.has_group("ipv4") {
        put_family(file, "ipv4", ip.method_v4(), &ip.v4);
    }
    if !file.has_group("ipv6") {
        file.put("ipv6", "addr-gen-mode", "stable-privacy");
        put_family(file, "ipv6", ip.method_v6(), &ip.v6);
    }
}

fn put_family(file: &mut Document, group: &str, method: Method, family: &Family) {
    let mut gateway = family.gateway;
    for (address, number) in family.addresses.iter().zip(1..) {
        // The oldest form, which every version reads, has the gateway behind the first address.
        let behind = gateway.take().map(|gateway| format!(",{gateway}"));
        let value = format!("{address}{}", behind.unwrap_or_default());
        file.put(group, &format!("address{number}"), &value);
    }
    let mut routes: Vec<String> = family.routes.iter().map(write_route).collect();
    // A gateway without an address of its network is not allowed; a route to everywhere is.
    routes.extend(gateway.map(|gateway| match gateway.is_ipv4() {
        true => format!("0.0.0.0/0,{gateway}"),
        false => format!("::/0,{gateway}"),
    }));
    for (route, number) in routes.iter().zip(1..) {
        file.put(group, &format!("route{number}"), route);
    }
    if !family.dns.is_empty() {
        let servers: String = family.dns.iter().map(|ip| format!("{ip};")).collect();
        file.put(group, "dns", &servers);
    }
    if !family.search.is_empty() {
        let domains: String = family.search.iter().map(|d| format!("{d};")).collect();
        file.put(group, "dns-search", &domains);
    }
    let method = match method {
        Method::Auto => "auto",
        Method::Manual => "manual",
        Method::Disabled => "disabled",
    };
    file.put(group, "method", method);
}

fn write_route(route: &super::ip::Route) -> String {
    match (route.via, route.metric) {
        (None, None) => route.to.to_string(),
        (Some(via), None) => format!("{},{via}", route.to),
        (Some(via), Some(metric)) => format!("{},{via},{metric}", route.to),
        (None, Some(metric)) => match route.to.ip.is_ipv4() {
            true => format!("{},0.0.0.0,{metric}", route.to),
            false => format!("{},::,{metric}", route.to),
        },
    }
}

/// An SSID as text when nothing in it could be misread, as decimal bytes (`97;112;`) otherwise.
///
/// Hexadecimal bytes are not understood, and devices were lost to that
/// (<https://github.com/brickbots/PiFinder/issues/520>).
fn write_ssid(ssid: &[u8]) -> String {
    let is_safe = |b: &u8| b.is_ascii_graphic() && !b";\\".contains(b) || *b == b' ';
    let is_plain =
        ssid.iter().all(is_safe) && ssid.first() != Some(&b' ') && ssid.last() != Some(&b' ');
    match is_plain {
        true => String::from_utf8_lossy(ssid).into_owned(),
        false => ssid.iter().map(|byte| format!("{byte};")).collect(),
    }
}
