//! The command line: what goes where, and with which exit status.

mod common;

use std::process::{Command, Output};

fn fatbin(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fatbin"))
        .args(args)
        .current_dir(common::data_dir())
        .output()
        .expect("fatbin runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn a_table_names_containers_entries_and_kernels() {
    let output = fatbin(&["inspect", "rdc.so", "--kernels"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let table = text(&output.stdout);
    for part in
        ["rdc.so: 3 containers, 5 images", "__nv_relfatbin", "wrapper version 2", "call_twice", "0:8 8:4"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn json_is_an_array_with_an_object_per_file() {
    let output = fatbin(&["inspect", "--json", "--kernels", "params.fatbin", "tiny.o"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value.as_array().map(Vec::len), Some(2));
    assert_eq!(value[0]["file"], "params.fatbin");
    let kernels = &value[0]["containers"][0]["entries"][0]["kernels"];
    let by_value =
        kernels.as_array().and_then(|k| k.iter().find(|k| k["name"] == "by_value")).expect("by_value");
    assert_eq!(by_value["param_size"], 34);
    assert_eq!(by_value["params"][1], serde_json::json!({"offset": 8, "size": 16}));
    assert_eq!(value[1]["containers"][0]["section"], ".nv_fatbin");
    assert_eq!(value[1]["containers"][0]["wrappers"], serde_json::json!([1]));
}

#[test]
fn errors_name_file_and_offset() {
    let dir = std::env::temp_dir().join(format!("fatbin-cli-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary folder");
    let cut = dir.join("cut.fatbin");
    let bytes = common::golden("tiny_size.fatbin");
    std::fs::write(&cut, &bytes[..bytes.len() - 8]).expect("written");
    let cut = cut.to_str().expect("UTF-8");

    let output = fatbin(&["inspect", cut]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = text(&output.stderr);
    assert!(message.contains(cut) && message.contains("at offset 0x0: truncated: needs"), "{message}");
    assert!(text(&output.stdout).contains("TRUNCATED"));

    let output = fatbin(&["inspect", "no_such_file", "sass.fatbin"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no_such_file: cannot read the file"));
    assert!(text(&output.stdout).contains("sass.fatbin: 1 container"), "the other file is listed");
    std::fs::remove_dir_all(&dir).expect("temporary folder");
}

#[test]
fn a_file_without_device_code_has_its_own_status() {
    let output = fatbin(&["inspect", "../../Cargo.toml"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("holds no device code"));
    assert_eq!(fatbin(&["inspect"]).status.code(), Some(2));
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let dir = std::env::temp_dir().join(format!("fatbin-esc-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary folder");
    let file = dir.join("escape.fatbin");
    let mut entry = common::entry(1, 75, b".version 8.0\n.target sm_75\n");
    entry.name = Some(b"\x1b]0;owned\x07.cu".to_vec());
    std::fs::write(&file, common::container(&[entry])).expect("written");
    let output = fatbin(&["inspect", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("owned"));
    assert!(!output.stdout.contains(&0x1b) && !output.stdout.contains(&0x07));
    // The name of a file, in messages, and what turns the direction of text.
    let file = dir.join("escape\x1b[31m\u{202e}.fatbin");
    std::fs::write(&file, common::header(64)).expect("written");
    let output = fatbin(&["inspect", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    for out in [text(&output.stdout), text(&output.stderr)] {
        assert!(
            out.contains("escape\\u{1b}[31m\\u{202e}.fatbin") && !out.contains(['\x1b', '\u{202e}']),
            "{out}"
        );
    }
    std::fs::remove_dir_all(&dir).expect("temporary folder");
}
