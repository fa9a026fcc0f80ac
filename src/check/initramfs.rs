//! What builds the initramfs, and the check that it is there. The planner asks too.

use super::Subject;
use crate::config::kind::word::InitramfsBuilder;
use crate::finding::Finding;
use crate::initramfs::tool::Tool;

/// The tool that builds the initramfs around stage 2, and its program; nothing when this program
/// builds all of it.
pub fn tool<'a>(subject: &Subject<'a>) -> Result<Option<(Tool, &'a str)>, Finding> {
    let tools = &subject.host.initramfs_tools;
    let (tool, program) = match *subject.config.initramfs {
        // Stage 2 mounts what it needs by itself; where it can't, it is refused, and would not find it
        // mounted either.
        InitramfsBuilder::Auto | InitramfsBuilder::Builtin => return Ok(None),
        InitramfsBuilder::InitramfsTools => (Tool::InitramfsTools, &tools.mkinitramfs),
        InitramfsBuilder::Dracut => (Tool::Dracut, &tools.dracut),
    };
    match program {
        Some(program) => Ok(Some((tool, program))),
        None => Err(Finding::error(
            "initramfs-tool",
            format!(
                "INITRAMFS={}, and this machine does not have it",
                tool.name()
            ),
            format!(
                "install the package {}, or leave INITRAMFS at auto",
                tool.package()
            ),
        )),
    }
}

/// The tool that was asked for is there.
pub fn builder(subject: &Subject) -> Vec<Finding> {
    tool(subject).err().into_iter().collect()
}
