//! Parses PTX files and prints what is in them: `cargo run -p ptx --example parse -- [--print] FILE...`
//! With `--print`, the whole module as it was understood.

use std::time::Instant;

fn main() {
    let mut failed = false;
    let mut print = false;
    for path in std::env::args().skip(1) {
        if path == "--print" {
            print = true;
            continue;
        }
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("{path}: {error}");
                failed = true;
                continue;
            }
        };
        let start = Instant::now();
        match ptx::parse(&text) {
            Ok(module) if print => print!("{module}"),
            Ok(module) => {
                let seconds = start.elapsed().as_secs_f64();
                let functions = module.items.iter().filter(|i| matches!(i, ptx::Item::Function(_))).count();
                let megabytes = text.len() as f64 / 1e6;
                println!(
                    "{path}: {} items, {functions} functions, {megabytes:.2} MB, {:.0} MB/s",
                    module.items.len(),
                    megabytes / seconds
                );
            }
            Err(error) => {
                eprintln!("{path}: {error}");
                failed = true;
            }
        }
    }
    if failed {
        std::process::exit(1);
    }
}
