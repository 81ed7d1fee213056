//! Lists the migrations for `src/store/migrations.rs`, which embeds them.

use std::fmt::Write as _;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=migrations");
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("migrations");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort();
    let mut list = "&[\n".to_owned();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let (number, what) = name
            .split_once('_')
            .ok_or_else(|| format!("{name}: call it <number>_<what>.sql"))?;
        let number: i64 = number.parse()?;
        let what = what.replace('_', " ");
        let path = path.to_str().ok_or("the folder's path is not UTF-8")?;
        writeln!(list, "    ({number}, {what:?}, include_str!({path:?})),")?;
    }
    list += "]\n";
    let out = Path::new(&std::env::var("OUT_DIR")?).join("migrations.rs");
    std::fs::write(out, list)?;
    Ok(())
}
