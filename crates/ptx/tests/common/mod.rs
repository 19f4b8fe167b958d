//! Helpers shared by the tests.
#![allow(dead_code)] // each test binary uses some

use ptx::*;

/// Parses a module whose header is given here.
pub fn parse_items(items: &str) -> Module {
    match parse(with_header(items).as_bytes()) {
        Ok(module) => module,
        Err(error) => panic!("{error}\n{items}"),
    }
}

/// The message for a module that must not parse.
pub fn parse_error(items: &str) -> String {
    match parse(with_header(items).as_bytes()) {
        Ok(module) => panic!("accepted:\n{module}"),
        Err(error) => error.to_string(),
    }
}

/// The header takes exactly one line: `items` begins in line 2.
pub fn with_header(items: &str) -> String {
    format!(".version 8.7 .target sm_90 .address_size 64\n{items}")
}

/// The body of a kernel with the given statements.
pub fn parse_body(statements: &str) -> Body {
    function(&parse_items(&format!(".visible .entry k()\n{{ {statements} }}")), "k").body.clone().unwrap()
}

pub fn function<'m>(module: &'m Module, name: &str) -> &'m Function {
    let found = module.items.iter().rev().find_map(|item| match item {
        Item::Function(function) if &*function.name == name => Some(function),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no function {name}"))
}

pub fn variable<'m>(module: &'m Module, name: &str) -> &'m Variable {
    let found = module.items.iter().find_map(|item| match item {
        Item::Variable(variable) if &*variable.name == name => Some(variable),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no variable {name}"))
}

pub fn instructions(body: &Body) -> Vec<&Instruction> {
    body.statements
        .iter()
        .filter_map(|statement| match statement {
            Statement::Instruction(instruction) => Some(instruction),
            Statement::Label(_) => None,
        })
        .collect()
}

/// Instructions as text.
pub fn texts(body: &Body) -> Vec<String> {
    instructions(body)
        .into_iter()
        .map(|instruction| InstructionText { body, instruction }.to_string())
        .collect()
}

pub const REAL: &[(&str, &[u8])] = &[
    ("basic", include_bytes!("../data/basic.ptx")),
    ("basic_100", include_bytes!("../data/basic_100.ptx")),
    ("cdp", include_bytes!("../data/cdp.ptx")),
    ("exotic", include_bytes!("../data/exotic.ptx")),
    ("sm90", include_bytes!("../data/sm90.ptx")),
    ("tiny", include_bytes!("../data/tiny.ptx")),
    ("unit_a", include_bytes!("../data/unit_a.ptx")),
    ("unit_b", include_bytes!("../data/unit_b.ptx")),
];
