//! The boards, by the revision code that the firmware passes on in the device tree.
//!
//! One table; the codes are those of
//! <https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#raspberry-pi-revision-codes>.

/// A model of board.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// The type in a new-style revision code.
    pub code: u32,
    /// Its name, as people say it.
    pub name: &'static str,
    /// The sections of config.txt that it reads.
    pub sections: &'static [&'static str],
    /// balenaOS device types that run on it, best first.
    pub slugs: &'static [&'static str],
    /// How it starts 64-bit kernels.
    pub bits_64: Bits64,
    /// The 32-bit kernel that it starts unless told otherwise; empty where it starts none.
    pub kernel_32: &'static str,
}

/// How a board starts 64-bit kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits64 {
    /// Never.
    Not,
    /// As `arm_64bit` says. Without it the model, the year of the firmware and the kernels that are there
    /// decide (<https://github.com/raspberrypi/firmware/issues/1193>).
    Either,
    /// Always.
    Always,
}

/// The 64-bit kernel of all boards.
pub const KERNEL_64: &str = "kernel8.img";

/// The 64-bit kernel that boards with a BCM2712 look for first.
pub const KERNEL_2712: &str = "kernel_2712.img";

/// Every model.
pub const MODELS: &[Model] = &[
    one(0x00, "1 Model A"),
    one(0x01, "1 Model B"),
    one(0x02, "1 Model A+"),
    one(0x03, "1 Model B+"),
    Model {
        code: 0x04,
        name: "2 Model B",
        sections: &["pi2"],
        slugs: &["raspberry-pi2"],
        bits_64: Bits64::Either,
        kernel_32: "kernel7.img",
    },
    one(0x06, "Compute Module 1"),
    three(0x08, "3 Model B", &["pi3"]),
    zero(0x09, "Zero", &["pi0"]),
    module_three(0x0a, "Compute Module 3"),
    zero(0x0c, "Zero W", &["pi0", "pi0w"]),
    three(0x0d, "3 Model B+", &["pi3", "pi3+"]),
    three(0x0e, "3 Model A+", &["pi3", "pi3+"]),
    module_three(0x10, "Compute Module 3+"),
    four(0x11, "4 Model B", &["pi4"], &["raspberrypi4-64"]),
    Model {
        code: 0x12,
        name: "Zero 2 W",
        sections: &["pi0", "pi0w", "pi02"],
        slugs: &["raspberrypi0-2w-64"],
        bits_64: Bits64::Either,
        kernel_32: "kernel7.img",
    },
    four(0x13, "400", &["pi4", "pi400"], &["raspberrypi400-64"]),
    four(
        0x14,
        "Compute Module 4",
        &["pi4", "cm4"],
        &["raspberrypicm4-ioboard"],
    ),
    four(0x15, "Compute Module 4S", &["pi4", "cm4s"], &[]),
    five(0x17, "5", &["pi5"]),
    five(0x18, "Compute Module 5", &["pi5", "cm5"]),
    five(0x19, "500", &["pi5", "pi500"]),
    five(0x1a, "Compute Module 5 Lite", &["pi5", "cm5"]),
];

const fn one(code: u32, name: &'static str) -> Model {
    Model {
        code,
        name,
        sections: &["pi1"],
        slugs: &["raspberry-pi"],
        bits_64: Bits64::Not,
        kernel_32: "kernel.img",
    }
}

const fn zero(code: u32, name: &'static str, sections: &'static [&'static str]) -> Model {
    Model {
        sections,
        ..one(code, name)
    }
}

const fn three(code: u32, name: &'static str, sections: &'static [&'static str]) -> Model {
    Model {
        code,
        name,
        sections,
        slugs: &["raspberrypi3-64", "raspberrypi3"],
        bits_64: Bits64::Either,
        kernel_32: "kernel7.img",
    }
}

const fn module_three(code: u32, name: &'static str) -> Model {
    Model {
        slugs: &["raspberrypi3-64", "raspberrypi3", "fincm3"],
        ..three(code, name, &["pi3"])
    }
}

const fn four(
    code: u32,
    name: &'static str,
    sections: &'static [&'static str],
    slugs: &'static [&'static str],
) -> Model {
    Model {
        code,
        name,
        sections,
        slugs,
        bits_64: Bits64::Either,
        kernel_32: "kernel7l.img",
    }
}

const fn five(code: u32, name: &'static str, sections: &'static [&'static str]) -> Model {
    Model {
        code,
        name,
        sections,
        slugs: &["raspberrypi5"],
        bits_64: Bits64::Always,
        kernel_32: "",
    }
}

impl Model {
    /// The model of a revision code, as /proc/cpuinfo and `system/linux,revision` of the device tree have
    /// it; `None` for boards that are newer than the table.
    pub fn of(revision: u32) -> Option<&'static Model> {
        /// Set in codes that have fields.
        const NEW_STYLE: u32 = 1 << 23;
        // Above 24 bits it says how the board was treated.
        let code = match revision & 0xff_ffff {
            new if new & NEW_STYLE != 0 => new >> 4 & 0xff,
            old => old_style(old)?,
        };
        MODELS.iter().find(|model| model.code == code)
    }
}

/// The type of a board from before revision codes had fields.
fn old_style(revision: u32) -> Option<u32> {
    Some(match revision {
        0x02..=0x06 | 0x0d..=0x0f => 0x01,
        0x07..=0x09 => 0x00,
        0x10 | 0x13 => 0x03,
        0x11 | 0x14 => 0x06,
        0x12 | 0x15 => 0x02,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_boards_that_were_sold() {
        let name = |revision| Model::of(revision).map(|model| model.name);
        // With and without the mark of an overvolted board.
        assert_eq!(name(0x000e), Some("1 Model B"));
        assert_eq!(name(0x100_000e), Some("1 Model B"));
        assert_eq!(name(0x0010), Some("1 Model B+"));
        assert_eq!(name(0x90_0093), Some("Zero"));
        assert_eq!(name(0x90_00c1), Some("Zero W"));
        assert_eq!(name(0xa0_1041), Some("2 Model B"));
        assert_eq!(name(0xa2_2042), Some("2 Model B"));
        assert_eq!(name(0xa0_2082), Some("3 Model B"));
        assert_eq!(name(0xa0_20d3), Some("3 Model B+"));
        assert_eq!(name(0x90_2120), Some("Zero 2 W"));
        assert_eq!(name(0xc0_3115), Some("4 Model B"));
        assert_eq!(name(0xc0_3130), Some("400"));
        assert_eq!(name(0xb0_3140), Some("Compute Module 4"));
        assert_eq!(name(0xc0_4170), Some("5"));
        assert_eq!(name(0xb0_4180), Some("Compute Module 5"));
        assert_eq!(name(0xd0_4190), Some("500"));
        assert_eq!(name(0), None);
        assert_eq!(name(0xf0_4ff0), None);
    }

    #[test]
    fn every_type_has_one_model() {
        let mut codes: Vec<u32> = MODELS.iter().map(|model| model.code).collect();
        codes.dedup();
        assert_eq!(codes.len(), MODELS.len());
        assert!(codes.is_sorted());
    }
}
