//! Where a store is: a folder, or a database that a URL names. A URL is never shown as it is written,
//! since a password may be in it.
//!
//! What libpq takes from the environment and from its password file counts here too: PGUSER, PGHOST,
//! PGPASSWORD, PGPASSFILE (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).

use std::net::IpAddr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::config::path;
use crate::sys::Sys;
use crate::sys::postgres::Login;

/// Where Debian's server has its socket.
const SOCKETS: &str = "/var/run/postgresql";

/// A database.
#[derive(Clone)]
pub struct Address {
    /// How to log in there.
    pub login: Login,
    /// To be shown: without the password.
    pub shown: String,
}

/// Why a URL is of no use: what is wrong; what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAddress(String);

/// How TLS is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tls {
    mode: Option<String>,
    root: Option<String>,
}

/// Whether a base is the URL of a database.
pub fn is_url(base: &str) -> bool {
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| base.starts_with(scheme))
}

/// Whether a password stands in it; also when it is not quite a URL.
pub fn has_password(base: &str) -> bool {
    let authority = base.split_once("://").map_or("", |(_, rest)| rest);
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    is_url(base) && (user.contains(':') || base.contains("password="))
}

impl Address {
    /// Reads a URL, and finds the password that belongs to it.
    pub fn parse(sys: &Sys, url: &str) -> Result<Address, BadAddress> {
        let (url, tls) = without_tls(url);
        // Its own message may show a piece of a password that was not encoded.
        let mut config: Config = url.parse().map_err(|_| {
            BadAddress(
                "the base is no address of PostgreSQL; write postgres://USER@HOST:PORT/DATABASE, what is \
                 special in a password as %XX"
                    .to_owned(),
            )
        })?;
        if config.get_hosts().is_empty() {
            match sys.variable("PGHOST") {
                Some(host) => config.host(host),
                None => config.host_path(SOCKETS),
            };
        }
        if config.get_user().is_none()
            && let Some(user) = sys.variable("PGUSER").or_else(|| sys.variable("USER"))
        {
            config.user(user);
        }
        if config.get_application_name().is_none() {
            config.application_name("migdb");
        }
        if config.get_password().is_none()
            && let Some(password) = password(sys, &config)
        {
            config.password(password);
        }
        let shown = shown(&config);
        let roots = roots(sys, &tls, &config)?;
        config.ssl_mode(match roots {
            Some(_) => SslMode::Require,
            None => SslMode::Disable,
        });
        let login = Login::new(config, roots.as_deref())
            .map_err(|error| BadAddress(format!("the certificates to trust: {error}")))?;
        Ok(Address { login, shown })
    }
}

/// Takes out what is ours to understand: the certificate is always looked at, so there is less to
/// choose than libpq has.
fn without_tls(url: &str) -> (String, Tls) {
    let mut tls = Tls::default();
    let Some((front, query)) = url.split_once('?') else {
        return (url.to_owned(), tls);
    };
    let mut others = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", mode)) => tls.mode = Some(mode.to_owned()),
            Some(("sslrootcert", file)) => tls.root = Some(file.replace("%2F", "/")),
            _ => others.push(pair),
        }
    }
    (format!("{front}?{}", others.join("&")), tls)
}

/// The further roots of trust where TLS is asked for. From here to a server on this machine nobody
/// listens in.
fn roots(sys: &Sys, tls: &Tls, config: &Config) -> Result<Option<Vec<u8>>, BadAddress> {
    let wanted = match tls.mode.as_deref() {
        None => tls.root.is_some() || !config.get_hosts().iter().all(is_here),
        Some("disable") => false,
        Some("require" | "verify-ca" | "verify-full") => true,
        Some(_) => {
            let text =
                "sslmode can't be that; write verify-full, or disable where nobody listens in";
            return Err(BadAddress(text.to_owned()));
        }
    };
    let file = match (wanted, &tls.root) {
        (false, _) => return Ok(None),
        (true, None) => return Ok(Some(Vec::new())),
        (true, Some(file)) => file,
    };
    let cwd = sys.current_dir();
    let read = cwd.and_then(|cwd| sys.read(&path::absolute(&cwd, file)));
    match read {
        Ok(roots) if String::from_utf8_lossy(&roots).contains("BEGIN CERTIFICATE") => {
            Ok(Some(roots))
        }
        Ok(_) => Err(BadAddress(format!(
            "{file} (sslrootcert) has no certificate in it; name one in PEM"
        ))),
        Err(error) => Err(BadAddress(format!(
            "{file} (sslrootcert) can't be read: {error}"
        ))),
    }
}

fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    }
}

fn shown(config: &Config) -> String {
    let user = config.get_user().map(|user| format!("{user}@"));
    let hosts: Vec<String> = std::iter::zip(config.get_hosts(), ports(config))
        .map(|(host, port)| match host {
            // A local one has no name.
            Host::Unix(_) => String::new(),
            Host::Tcp(name) => format!("{name}:{port}"),
        })
        .collect();
    format!(
        "postgres://{}{}/{}",
        user.unwrap_or_default(),
        hosts.join(","),
        config.get_dbname().unwrap_or_default()
    )
}

/// One for each host.
fn ports(config: &Config) -> impl Iterator<Item = u16> {
    let all = config.get_ports();
    let last = all.last().copied().unwrap_or(5432);
    all.iter().copied().chain(std::iter::repeat(last))
}

/// What is not in the URL.
fn password(sys: &Sys, config: &Config) -> Option<String> {
    if let Some(password) = sys.variable("PGPASSWORD") {
        return Some(password);
    }
    let home = || Some(format!("{}/.pgpass", sys.variable("HOME")?));
    let file = sys.variable("PGPASSFILE").or_else(home)?;
    let meta = sys.meta(&file).ok()?;
    if meta.mode & 0o077 != 0 {
        log::warn!("{file} is passed over: others can read it; chmod 600 it");
        return None;
    }
    let text = sys.read_text(&file).ok()?;
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    std::iter::zip(config.get_hosts(), ports(config)).find_map(|(host, port)| {
        let host = match host {
            Host::Tcp(name) => name.as_str(),
            Host::Unix(folder) if folder.to_str() == Some(SOCKETS) => "localhost",
            Host::Unix(folder) => folder.to_str()?,
        };
        of_line(&text, &[host, &port.to_string(), database, user])
    })
}

/// The password of the first line `host:port:database:user:password` that fits; `*` fits all.
fn of_line(text: &str, wanted: &[&str; 4]) -> Option<String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let fields = fields(line);
            let (password, key) = fields.split_last().filter(|(_, key)| key.len() == 4)?;
            let fits = |(field, wanted): (&String, &&str)| field == "*" || field == wanted;
            std::iter::zip(key, wanted)
                .all(fits)
                .then(|| password.clone())
        })
}

/// Five at most, parted by `:`; a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        let count = fields.len();
        let Some(last) = fields.last_mut() else { break };
        match c {
            '\\' => last.extend(rest.next()),
            ':' if count < 5 => fields.push(String::new()),
            c => last.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_of(url: &str) -> String {
        Address::parse(&Sys::new("/"), url).map_or_else(|error| error.to_string(), |a| a.shown)
    }

    #[test]
    fn what_is_shown_has_no_password() {
        for url in [
            "postgres://me:hunter2@db.example:6000/fleet",
            "postgres://me@db.example:6000/fleet?password=hunter2",
            "postgresql://me:hunter2@db.example:6000/fleet?sslmode=disable",
        ] {
            assert_eq!(shown_of(url), "postgres://me@db.example:6000/fleet");
            assert!(has_password(url));
        }
        for bad in [
            "postgres://me:hunt?er2=hunter2@db/fleet",
            "postgres://me:hunter2@db:hunter2/fleet",
            "postgres://me:hunter2@db/fleet?sslmode=hunter2",
            "postgres://me:hunter2@db/fleet?hunter2=1",
        ] {
            assert!(!shown_of(bad).contains("hunter2"), "{}", shown_of(bad));
            assert!(has_password(bad));
        }
        assert!(!has_password("postgres://me@db/fleet"));
        assert!(!has_password("/a:b@c"));
    }

    #[test]
    fn over_a_network_tls_is_the_default() {
        let asked = |url: &str| {
            let (url, tls) = without_tls(url);
            let config: Config = url.parse().unwrap();
            roots(&Sys::new("/"), &tls, &config).map(|roots| roots.is_some())
        };
        assert_eq!(asked("postgres://db.example/fleet"), Ok(true));
        assert_eq!(
            asked("postgres://db.example/fleet?sslmode=disable"),
            Ok(false)
        );
        assert_eq!(asked("postgres://localhost,db.example/fleet"), Ok(true));
        for here in [
            "postgres://localhost/x",
            "postgres://127.0.0.1/x",
            "postgres://%2Ftmp/x",
        ] {
            assert_eq!(asked(here), Ok(false), "{here}");
        }
        assert_eq!(asked("postgres://localhost/x?sslmode=require"), Ok(true));
        for less in ["allow", "prefer"] {
            assert!(asked(&format!("postgres://db/x?sslmode={less}")).is_err());
        }
    }

    #[test]
    fn the_password_file_is_read_as_libpq_does() {
        let text = "# db:5432:fleet:me:no\ndb:5432:other:me:no\nd\\:b:*:*:me:colon\n\
                    db:*:fleet:me:a\\:b\\\\:c\n*:*:*:*:any\n";
        let of = |wanted| of_line(text, &wanted);
        assert_eq!(
            of(["db", "5432", "fleet", "me"]).as_deref(),
            Some("a:b\\:c")
        );
        assert_eq!(of(["d:b", "1", "x", "me"]).as_deref(), Some("colon"));
        assert_eq!(of(["x", "1", "y", "z"]).as_deref(), Some("any"));
    }
}
