//! Finds the menu entries that GRUB opens by itself on its way to the default one. Pure; called by
//! [`super::grub_cfg`].

use super::grub_script::Statement;

/// The heads of the default entry and of the submenus around it, outermost first; those of the first entry
/// where the default names none, as GRUB does it. Nothing where there is no entry.
///
/// `saved` is `saved_entry` of grubenv.
pub(super) fn default_entry<'a>(statements: &'a [Statement], saved: &str) -> Vec<&'a Statement> {
    let run = || statements.iter().filter(|statement| statement.is_run());
    // The one-shot takes the place of what stands in the other branch.
    let default = run()
        .filter_map(|statement| statement.sets("default"))
        .rfind(|value| !value.contains("next_entry"));
    let default = match default {
        Some(value) if value.contains("saved_entry") => saved,
        Some(value) => value,
        None => "",
    };
    let named = find(statements, default);
    match named.is_empty() {
        true => entries(statements, None).into_iter().take(1).collect(),
        false => named,
    }
}

/// The entry that `name` leads to, such as `2`, `Debian` or `1>older`, with all submenus on the way; nothing
/// when one of them is not there.
fn find<'a>(statements: &'a [Statement], name: &str) -> Vec<&'a Statement> {
    let mut path: Vec<&Statement> = Vec::new();
    for step in name.split('>') {
        let here = entries(statements, path.last().copied());
        let by_name = || here.iter().find(|entry| is_called(entry, step));
        let by_number = || here.get(step.parse::<usize>().ok()?);
        match by_name().or_else(by_number) {
            Some(entry) => path.push(entry),
            None => return Vec::new(),
        }
    }
    path
}

/// The entries of a menu: of that submenu, or the first one.
fn entries<'a>(statements: &'a [Statement], menu: Option<&Statement>) -> Vec<&'a Statement> {
    let is_menu = |head: &str| head.starts_with("menuentry ") || head.starts_with("submenu ");
    statements
        .iter()
        .filter(|statement| matches!(statement.first_word(), "menuentry" | "submenu"))
        .filter(|statement| {
            let around = statement.within.iter().rfind(|head| is_menu(head));
            around.map(String::as_str) == menu.map(|menu| menu.text.as_str())
        })
        .collect()
}

/// Whether a title or an id is that of an entry. Quotes are gone from its text: the title ends at an option.
fn is_called(entry: &Statement, name: &str) -> bool {
    let words = entry.text.strip_prefix(entry.first_word());
    let words = words.unwrap_or_default().trim_start();
    let is_title = words
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(" -") || rest.starts_with(" $"));
    let mut ids = ["--id ", "--id=", "$menuentry_id_option "]
        .iter()
        .filter_map(|option| words.split_once(option));
    let is_id = ids.any(|(_, id)| {
        id.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    });
    !name.is_empty() && (is_title || is_id)
}

#[cfg(test)]
mod tests {
    use super::super::grub_script::parse;
    use super::*;

    const MENU: &str = r#"
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	linux /vmlinuz
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian, with Linux 6.1' --class debian $menuentry_id_option 'gnulinux-6.1-1' {
	}
	menuentry 'Debian, with Linux 6.1 (recovery mode)' --unrestricted --id rescue {
	}
}
if [ x ]; then
	menuentry mine --unrestricted {
	}
fi
"#;

    /// The names on the way, by the words that they begin with.
    fn way(default: &str, saved: &str) -> Vec<String> {
        let text = format!(
            "if [ \"${{next_entry}}\" ] ; then\n   set default=\"${{next_entry}}\"\nelse\n   \
             set default=\"{default}\"\nfi\n{MENU}"
        );
        default_entry(&parse(&text), saved)
            .iter()
            .map(|entry| entry.text.split(" -").next().unwrap().replace(" $", "|"))
            .map(|head| head.split('|').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_default_by_number_name_and_id() {
        const FIRST: [&str; 1] = ["menuentry Debian GNU/Linux"];
        let inner = [
            "submenu Advanced options",
            "menuentry Debian, with Linux 6.1",
        ];
        assert_eq!(way("0", ""), FIRST);
        assert_eq!(way("2", ""), ["menuentry mine"]);
        assert_eq!(way("mine", ""), ["menuentry mine"]);
        assert_eq!(way("Debian GNU/Linux", ""), FIRST);
        assert_eq!(way("1>0", ""), inner);
        assert_eq!(way("gnulinux-advanced-1>gnulinux-6.1-1", ""), inner);
        assert_eq!(way("Advanced options>Debian, with Linux 6.1", ""), inner);
        assert_eq!(
            way("1>rescue", "")[1],
            "menuentry Debian, with Linux 6.1 (recovery mode)"
        );
    }

    #[test]
    fn what_is_saved_and_what_names_nothing() {
        assert_eq!(way("${saved_entry}", "2"), ["menuentry mine"]);
        for nothing in ["${saved_entry}", "9", "none", "1>9"] {
            assert_eq!(
                way(nothing, ""),
                ["menuentry Debian GNU/Linux"],
                "{nothing}"
            );
        }
        assert!(default_entry(&parse("set default=0\nset timeout=5\n"), "").is_empty());
    }
}
