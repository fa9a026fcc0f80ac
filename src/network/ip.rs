//! IP configuration: addresses, gateways, routes and name servers of a connection.
//!
//! Made by the readers, compared by [`mod@super::select`], written by [`super::write`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// The configuration of both families. The default is automatic: DHCP and router advertisements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ip {
    /// IPv4.
    pub v4: Family,
    /// IPv6.
    pub v6: Family,
}

/// The configuration of a family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// Whether addresses are asked for; `None` when the file says nothing.
    pub auto: Option<bool>,
    /// Fixed addresses.
    pub addresses: Vec<Address>,
    /// Where everything goes that has no other route.
    pub gateway: Option<IpAddr>,
    /// Other routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
}

/// An address and the length of its network's prefix, or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Address.
    pub ip: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Address,
    /// Over which router; none when it is on the link.
    pub via: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: Option<u32>,
}

/// How a family gets its addresses, as NetworkManager names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// DHCP or router advertisements; fixed addresses are added.
    Auto,
    /// Fixed addresses only.
    Manual,
    /// None.
    Disabled,
}

impl Ip {
    /// The family of an address.
    pub fn family(&mut self, ip: IpAddr) -> &mut Family {
        match ip.is_ipv4() {
            true => &mut self.v4,
            false => &mut self.v6,
        }
    }

    /// Adds a fixed address; a second time it changes nothing.
    pub fn add_address(&mut self, address: Address) {
        let family = self.family(address.ip);
        if !family.addresses.contains(&address) {
            family.addresses.push(address);
        }
    }

    /// Sets the gateway of its family. The unspecified address is how some files say none.
    pub fn set_gateway(&mut self, gateway: IpAddr) {
        if !gateway.is_unspecified() {
            self.family(gateway).gateway = Some(gateway);
        }
    }

    /// Adds a name server.
    pub fn add_dns(&mut self, server: IpAddr) {
        let family = self.family(server);
        if !family.dns.contains(&server) {
            family.dns.push(server);
        }
    }

    /// Adds a search domain.
    pub fn add_search(&mut self, domain: &str) {
        if !domain.is_empty() && !self.v4.search.iter().any(|there| there == domain) {
            self.v4.search.push(domain.to_owned());
        }
    }

    /// Adds a route; one to everywhere is the gateway when none is set.
    pub fn add_route(&mut self, route: Route) {
        let family = self.family(route.to.ip);
        match route.via {
            Some(via) if route.to.is_everything() && family.gateway.is_none() => {
                family.gateway = Some(via);
            }
            _ if !family.routes.contains(&route) => family.routes.push(route),
            _ => {}
        }
    }

    /// All fixed addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.v4.addresses.iter().chain(&self.v6.addresses)
    }

    /// Whether nothing is fixed in it.
    pub fn is_automatic(&self) -> bool {
        let is_automatic = |family: &Family| {
            family.addresses.is_empty()
                && family.gateway.is_none()
                && family.routes.is_empty()
                && family.dns.is_empty()
                && family.search.is_empty()
        };
        is_automatic(&self.v4) && is_automatic(&self.v6)
    }

    /// How IPv4 gets its addresses.
    pub fn method_v4(&self) -> Method {
        match (self.v4.auto, self.v4.addresses.is_empty()) {
            (Some(true), _) | (None, true) => Method::Auto,
            (Some(false), true) => Method::Disabled,
            (_, false) => Method::Manual,
        }
    }

    /// How IPv6 gets its addresses. A fixed address without a gateway counts on the routers'
    /// advertisements, which every older system listens to beside it.
    pub fn method_v6(&self) -> Method {
        match (self.v6.auto, self.v6.addresses.is_empty()) {
            (Some(true), _) | (None, true) => Method::Auto,
            (Some(false), true) => Method::Disabled,
            (None, false) if self.v6.gateway.is_none() => Method::Auto,
            (_, false) => Method::Manual,
        }
    }
}

impl Address {
    /// Reads `address/prefix`; without a prefix `mask` counts, which is a length or a netmask, and
    /// without either the address is a network of its own.
    pub fn parse(text: &str, mask: Option<&str>) -> Option<Address> {
        let (ip, prefix) = match text.trim().split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text.trim(), mask),
        };
        let ip: IpAddr = ip.trim().parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix_length(prefix.trim())?,
            None => most,
        };
        (prefix <= most).then_some(Address { ip, prefix })
    }

    /// Reads the target of a route: a network, or `default`.
    pub fn parse_target(text: &str, mask: Option<&str>, v6: bool) -> Option<Address> {
        match (text.trim(), v6) {
            ("default", false) => Address::parse("0.0.0.0/0", None),
            ("default", true) => Address::parse("::/0", None),
            (text, _) => Address::parse(text, mask),
        }
    }

    fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// `24` or `255.255.255.0`; masks with holes are refused.
fn prefix_length(text: &str) -> Option<u8> {
    if let Ok(length) = text.parse() {
        return Some(length);
    }
    let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
    let ones = mask.leading_ones();
    (mask.count_ones() == ones).then_some(ones as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_prefix_and_with_mask() {
        for (text, mask, expected) in [
            ("10.0.0.2/24", None, Some("10.0.0.2/24")),
            ("10.0.0.2/255.255.0.0", None, Some("10.0.0.2/16")),
            ("10.0.0.2", Some("255.255.255.0"), Some("10.0.0.2/24")),
            ("10.0.0.2", Some("22"), Some("10.0.0.2/22")),
            ("fd00::2", Some("64"), Some("fd00::2/64")),
            ("10.0.0.2", None, Some("10.0.0.2/32")),
            ("10.0.0.2", Some("255.0.255.0"), None),
            ("10.0.0.2/33", None, None),
            ("host", None, None),
        ] {
            let read = Address::parse(text, mask).map(|address| address.to_string());
            assert_eq!(read.as_deref(), expected, "{text} {mask:?}");
        }
    }

    #[test]
    fn a_fixed_address_of_ipv6_still_hears_the_routers() {
        let mut ip = Ip::default();
        ip.add_address(Address::parse("fd00::2/64", None).unwrap());
        assert_eq!(ip.method_v6(), Method::Auto);
        ip.set_gateway("fd00::1".parse().unwrap());
        assert_eq!(ip.method_v6(), Method::Manual);
        assert_eq!(ip.method_v4(), Method::Auto);
    }
}
