//! Bodies for fuzzers; also run by the tests over `corpus/` and mutations of it.

/// Parses arbitrary bytes. What is accepted must print as a text that is accepted again and prints the same, and must
/// survive layout and linking.
///
/// # Panics
/// If the properties above do not hold.
pub fn fuzz_ptx(data: &[u8]) {
    let Ok(module) = crate::parse(data) else { return };
    let printed = module.to_string();
    match crate::parse(printed.as_bytes()) {
        Ok(again) => assert_eq!(again.to_string(), printed, "printing is not stable"),
        Err(error) => panic!("printed module is not accepted: {error}\n{printed}"),
    }
    for item in &module.items {
        match item {
            crate::Item::Variable(variable) => drop(crate::layout::image(variable, 1 << 16)),
            crate::Item::Function(function) => drop(crate::layout::params(&function.params)),
            crate::Item::Alias { .. } => {}
        }
    }
    let unit = |name: &str| crate::Unit { name: name.into(), module: module.clone() };
    drop(crate::link(vec![unit("a")]));
    if let Ok(linked) = crate::link(vec![unit("a"), unit("b")]) {
        let printed = linked.to_string();
        if let Err(error) = crate::parse(printed.as_bytes()) {
            panic!("linked module is not accepted: {error}\n{printed}");
        }
    }
}
