//! Inputs that were kept.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
};

/// Run `operation` over every file in `folder`, in the order of their names, and say which file it
/// was when one fails. Returns how many there were.
///
/// # Errors
/// The folder or a file cannot be read.
pub fn replay(folder: &Path, mut operation: impl FnMut(&[u8])) -> io::Result<usize> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<io::Result<Vec<PathBuf>>>()?;
    files.sort();
    for file in &files {
        let bytes = fs::read(file)?;
        let run = catch_unwind(AssertUnwindSafe(|| operation(&bytes)));
        if let Err(panic) = run {
            eprintln!("{} failed", file.display());
            resume_unwind(panic);
        }
    }
    Ok(files.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_run_in_the_order_of_names_until_one_fails() -> io::Result<()> {
        let folder = std::env::temp_dir().join(format!("replay-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        for name in ["c", "a", "b"] {
            fs::write(folder.join(name), name)?;
        }
        let mut run = Vec::new();
        let count = replay(&folder, |bytes| run.push(bytes.to_vec()))?;
        assert_eq!((count, run.concat()), (3, b"abc".to_vec()));
        let failed = catch_unwind(|| replay(&folder, |bytes| assert_ne!(bytes, b"b")));
        assert!(failed.is_err());
        fs::remove_dir_all(&folder)
    }
}
