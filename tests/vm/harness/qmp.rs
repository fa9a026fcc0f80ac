//! QEMU's control channel (QMP): one JSON document a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Qmp {
    /// Greets QEMU on `stream`.
    pub fn open(stream: UnixStream) -> Result<Self, String> {
        // Long enough for a savevm on a busy host, short enough for a QEMU that hangs.
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .map_err(|e| format!("setting a time limit on QMP: {e}"))?;
        let writer = stream
            .try_clone()
            .map_err(|e| format!("sharing the QMP socket: {e}"))?;
        let mut qmp = Qmp {
            reader: BufReader::new(stream),
            writer,
        };
        qmp.message()?;
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value, String> {
        let request = json!({"execute": name, "arguments": arguments});
        writeln!(self.writer, "{request}").map_err(|e| format!("sending {name} to QEMU: {e}"))?;
        loop {
            let mut message = self.message().map_err(|e| format!("{name}: {e}"))?;
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = message.get("error") {
                return Err(format!("{name}: {error}"));
            }
            // Anything else is an event.
        }
    }

    fn message(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err("QEMU is gone".to_owned()),
            Ok(_) => serde_json::from_str(&line).map_err(|e| format!("not JSON: {line}: {e}")),
            Err(e) => Err(format!("no answer from QEMU: {e}")),
        }
    }
}
