//! Tells the program what it was built with. At run time another compiler may be first in the path,
//! and the optimisation level is nowhere to be read.

use std::error::Error;
use std::io::{self, Write};
use std::process::Command;
use std::{env, str};

fn main() -> Result<(), Box<dyn Error>> {
    let version = Command::new(env::var("RUSTC")?).arg("--version").output()?;
    let mut cargo = io::stdout().lock();
    writeln!(
        cargo,
        "cargo::rustc-env=BENCHMARKS_COMPILER={}",
        str::from_utf8(&version.stdout)?.trim()
    )?;
    writeln!(
        cargo,
        "cargo::rustc-env=BENCHMARKS_PROFILE={}, opt-level {}",
        env::var("PROFILE")?,
        env::var("OPT_LEVEL")?
    )?;
    writeln!(cargo, "cargo::rerun-if-changed=build.rs")?;
    Ok(())
}
