//! `migdb watch` and `migdb serve`.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use super::{Common, Exit, Failure, list, logs, open, print};
use crate::fleet::moment::Moment;
use crate::fleet::serve::Page;
use crate::fleet::store::Store;
use crate::fleet::view::{View, view};
use crate::sys::{Sys, interrupt};

/// Options of `watch`.
#[derive(Debug, clap::Args)]
pub struct WatchOptions {
    /// Show once, and end
    #[arg(long)]
    once: bool,
}

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeOptions {
    /// An address of the loopback, and a port; port 0 takes any
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

/// How often the table is drawn anew without news, for its times.
const REDRAW: Duration = Duration::from_secs(5);

/// The shortest time between two tables.
const TOGETHER: Duration = Duration::from_millis(300);

/// Shows the fleet on the terminal, until Ctrl-C.
pub fn watch(sys: &Sys, common: &Common, options: &WatchOptions) -> Result<Exit, Failure> {
    let settings = common.settings(sys, Vec::new())?;
    let store = open(sys, &settings, false)?;
    if options.once || !io::stdout().is_terminal() {
        let now = Moment::now();
        print(&page(
            &view(&store.all()?, now),
            now,
            usize::MAX,
            usize::MAX,
        ))?;
        return Ok(Exit::Done);
    }
    interrupt::catch_first().context("preparing for signals")?;
    let mut terminal = io::stdout().lock();
    // The alternate screen, so that the shell's lines are there again afterwards: also after a fault.
    let begun = write!(terminal, "\x1b[?1049h\x1b[?25l").context(WRITING);
    let drawn = begun.and_then(|()| draw(sys, store.as_ref(), &mut terminal));
    let ended = write!(terminal, "\x1b[?25h\x1b[?1049l")
        .and_then(|()| terminal.flush())
        .context(WRITING);
    drawn.and(ended)?;
    Ok(Exit::Done)
}

const WRITING: &str = "writing to the terminal";

/// Draws the table whenever there is news, until a signal comes.
fn draw(sys: &Sys, store: &dyn Store, terminal: &mut impl Write) -> anyhow::Result<()> {
    while !interrupt::caught() {
        let now = Moment::now();
        let (width, height) = size();
        let page = page(&view(&store.all()?, now), now, width, height);
        write!(terminal, "\x1b[H{}\x1b[J", page.replace('\n', "\x1b[K\r\n"))
            .and_then(|()| terminal.flush())
            .context(WRITING)?;
        store.wait(REDRAW)?;
        sys.sleep(TOGETHER);
    }
    Ok(())
}

/// Shows the fleet on a web page, until Ctrl-C.
pub fn serve(sys: &Sys, common: &Common, options: &ServeOptions) -> Result<Exit, Failure> {
    let settings = common.settings(sys, Vec::new())?;
    let store = open(sys, &settings, false)?;
    let logs = logs(sys, &settings)?;
    interrupt::catch_first().context("preparing for signals")?;
    let page = Page::new(sys, store.as_ref(), &logs, options.listen)
        .map_err(|error| Failure(Exit::Usage, error))?;
    print(&format!("http://{}/\n", page.address()))?;
    page.run()?;
    Ok(Exit::Done)
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    match terminal_size::terminal_size() {
        Some((terminal_size::Width(width), terminal_size::Height(height))) => {
            (width.into(), height.into())
        }
        None => (80, 24),
    }
}

/// Counts and the table, cut to so many columns and lines. Units that something happens with come first.
fn page(view: &View, now: Moment, width: usize, height: usize) -> String {
    let counts: Vec<String> = view
        .counts
        .iter()
        .map(|(state, count)| format!("{state} {count}"))
        .collect();
    let left = match view.seconds_left {
        Some(seconds) => format!(", {} min left", seconds.div_ceil(60)),
        None => String::new(),
    };
    let head = format!(
        "{}   {} done in the last hour{left}\n\n",
        counts.join("  "),
        view.done_per_hour
    );
    let mut rows: Vec<_> = view.units.iter().collect();
    rows.sort_by_key(|row| list::urgency(row.state));
    let table = list::table(&rows, now);
    let cut = |line: &str| line.chars().take(width).collect::<String>();
    let lines: Vec<String> = head.lines().chain(table.lines()).map(cut).collect();
    match lines.len() < height {
        true => lines.join("\n") + "\n",
        false => {
            let kept = height.saturating_sub(2).max(3).min(lines.len());
            let more = lines.len() - kept;
            format!("{}\n… and {more} more\n", lines[..kept].join("\n"))
        }
    }
}
