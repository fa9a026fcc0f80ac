//! The settings of addresses that all kinds of devices share.

use serde_yaml::Value;

use super::super::ip::{Address, Ip, Route};
use super::{text, texts};

/// Reads them; an address that can't be read is an error in words.
pub(super) fn read(settings: &Value) -> Result<Ip, String> {
    let mut ip = Ip::default();
    let flag = |key: &str| match settings.get(key) {
        Some(Value::Bool(flag)) => Some(*flag),
        Some(Value::String(text)) => Some(matches!(text.as_str(), "yes" | "on" | "true")),
        _ => None,
    };
    if flag("dhcp4") == Some(true) {
        ip.v4.auto = Some(true);
    }
    if flag("dhcp6") == Some(true) || flag("accept-ra") == Some(true) {
        ip.v6.auto = Some(true);
    } else if flag("accept-ra") == Some(false) {
        ip.v6.auto = Some(false);
    }
    let addresses = settings.get("addresses").and_then(Value::as_sequence);
    for address in addresses.into_iter().flatten() {
        let written = written_address(address).ok_or("an address is no text")?;
        let address = Address::parse(&written, None);
        ip.add_address(address.ok_or_else(|| format!("`{written}` is no address"))?);
    }
    for key in ["gateway4", "gateway6"] {
        let gateway = settings.get(key).and_then(text);
        if let Some(gateway) = gateway.and_then(|gateway| gateway.parse().ok()) {
            ip.set_gateway(gateway);
        }
    }
    let names = settings.get("nameservers");
    let names = |key| texts(names.and_then(|names| names.get(key)));
    names("addresses")
        .filter_map(|server| server.parse().ok())
        .for_each(|server| ip.add_dns(server));
    names("search").for_each(|domain| ip.add_search(&domain));
    let routes = settings.get("routes").and_then(Value::as_sequence);
    routes
        .into_iter()
        .flatten()
        .filter_map(route)
        .for_each(|route| ip.add_route(route));
    Ok(ip)
}

/// `address/prefix`, or a mapping of one to its options.
fn written_address(value: &Value) -> Option<String> {
    match value.as_mapping() {
        Some(mapping) => mapping.keys().next().and_then(text),
        None => text(value),
    }
}

fn route(value: &Value) -> Option<Route> {
    // Routes of other tables are for rules that are not carried.
    if value.get("table").is_some() {
        return None;
    }
    let of = |key| value.get(key).and_then(text);
    let via: Option<std::net::IpAddr> = of("via").and_then(|via| via.parse().ok());
    let is_v6 = via.is_some_and(|via| via.is_ipv6());
    Some(Route {
        to: Address::parse_target(&of("to")?, None, is_v6)?,
        via,
        metric: of("metric").and_then(|metric| metric.parse().ok()),
    })
}
