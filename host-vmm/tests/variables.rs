//! Managed variables of machine code with the CUDA backend: what the driver is given, what the program is told and finds in its memory.
//! A few lines of C in the driver's place keep what they are asked to load.

mod common;

use common::stand_in::StandIn;
use common::{Client, Daemon};
use fatbin::{Container, Kind, Managed};
use protocol::region::Region;
use protocol::{Reader, Status, ops};

const PTX: u32 = 1;
const CUBIN: u32 = 2;

/// It wants a context for registering memory, and notes what is registered. The file `length` says how long the images are that it is given.
const DRIVER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define HAS(name) (access(DIR "/" name, F_OK) == 0)
typedef unsigned long long word;
static void *current;
static int context;
static void note(const char *what, word address, word length) {
    FILE *log = fopen(DIR "/calls", "a");
    fprintf(log, "%s %llx %llu\n", what, address, length);
    fclose(log);
}
static char *contents(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(1 << 20);
    *length = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}
static unsigned load(word *out, const void *image) {
    size_t digits;
    char *length = contents(DIR "/length", &digits);
    length[digits] = 0;
    FILE *file = fopen(DIR "/image", "wb");
    fwrite(image, 1, strtoul(length, 0, 10), file);
    fclose(file);
    *out = 0x1234000;
    return HAS("refuses") ? 200 : 0;
}
unsigned cuInit(unsigned flags) { return 0; }
unsigned cuDeviceGetCount(int *count) { *count = 1; return 0; }
unsigned cuDevicePrimaryCtxRetain(void **out, int device) { *out = &context; return 0; }
unsigned cuDevicePrimaryCtxRelease_v2(int device) { current = 0; return 0; }
unsigned cuCtxGetCurrent(void **out) { *out = current; return 0; }
unsigned cuCtxSetCurrent(void *to) { current = to; return 0; }
unsigned cuCtxPushCurrent_v2(void *to) { current = to; return 0; }
unsigned cuCtxPopCurrent_v2(void **from) { *from = current; current = 0; return 0; }
unsigned cuCtxGetDevice(int *device) { *device = 0; return current ? 0 : 201; }
unsigned cuCtxSynchronize(void) { return current ? 0 : 201; }
unsigned cuMemHostRegister_v2(void *p, size_t length, unsigned flags) {
    if (!current) return 201;
    note("register", (word)p, length);
    return 0;
}
unsigned cuMemHostUnregister(void *p) { note("unregister", (word)p, 0); return 0; }
unsigned cuModuleLoadDataEx(word *out, const void *image, unsigned n, int *keys, void **values) { return load(out, image); }
unsigned cuModuleUnload(word module) { return 0; }
unsigned cuModuleGetGlobal_v2(word *address, size_t *length, word module, const char *name) { return 500; }
unsigned cuLibraryLoadData(word *out, const void *image, int *k, void **v, unsigned n, int *lk, void **lv, unsigned ln) { return load(out, image); }
unsigned cuLibraryUnload(word library) { return 0; }
unsigned cuLibraryGetModule(word *module, word library) { *module = 0x5678000; return current ? 0 : 201; }
unsigned cuLibraryGetGlobal(word *address, size_t *length, word library, const char *name) { return 500; }
unsigned cuLibraryGetManaged(word *address, size_t *length, word library, const char *name) { return 500; }
static char *linked;
unsigned cuLinkCreate_v2(unsigned n, int *keys, void **values, word *state) { *state = 1; return 0; }
unsigned cuLinkAddData_v2(word state, int type, void *data, size_t length, const char *name, unsigned n, int *k, void **v) {
    note("links", type, length);
    return 0;
}
unsigned cuLinkComplete(word state, void **cubin, size_t *length) { *cubin = linked = contents(DIR "/linked", length); return 0; }
unsigned cuLinkDestroy(word state) { free(linked); return 0; }
"#;

struct Setting {
    driver: StandIn,
    _daemon: Daemon,
    client: Client,
}

impl Setting {
    fn new() -> Self {
        let driver = StandIn::new(DRIVER);
        let daemon = driver.daemon(0);
        let mut client = Client::connect(&daemon.address);
        client.call(ops::cuInit, |w| w.u32(0)).unwrap();
        Self { driver, _daemon: daemon, client }
    }

    fn load(&mut self, op: u16, form: u32, image: &[u8], loaded_len: usize) -> Result<u64, Status> {
        self.driver.write("length", loaded_len.to_string().as_bytes());
        self.client.load_image(op, form, image).map_err(|(status, _)| status)
    }

    /// Address and size of a variable.
    fn ask(&mut self, op: u16, owner: u64, name: &std::ffi::CStr) -> Result<(u64, u64), Status> {
        let reply = self.client.call(op, |w| {
            w.present(true);
            w.present(true);
            w.u64(owner);
            w.cstr(Some(name));
        })?;
        let mut reader = Reader::new(&reply);
        Ok((reader.u64().unwrap(), reader.u64().unwrap()))
    }

    /// What the program finds at an address.
    fn memory(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.client.window.copy_out(self.offset(address), &mut bytes).unwrap();
        bytes
    }

    fn offset(&self, address: u64) -> u64 {
        Region::new(self.client.welcome.region_tag).unwrap().window_offset(address).unwrap()
    }

    fn calls(&self, what: &str) -> Vec<(u64, u64)> {
        let calls = self.driver.wrote("calls");
        let of = |line: &str| {
            let mut words = line.strip_prefix(what)?.strip_prefix(' ')?.split(' ');
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((address, words.next()?.parse().ok()?))
        };
        calls.lines().filter_map(of).collect()
    }
}

/// Machine code for one architecture, made by nvcc.
fn image(file: &str, sm: u32) -> Vec<u8> {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fatbin/tests/data");
    let bytes = std::fs::read(data.join(file)).unwrap();
    let container = Container::parse(&bytes).unwrap();
    let mut entries = container.entries().map(|entry| entry.unwrap());
    let entry = entries.find(|entry| entry.kind() == Kind::Elf && entry.arch().sm == sm).unwrap();
    entry.data(1 << 20).unwrap().into_owned()
}

/// The addresses of the variables in the order of the file, by asking for each.
fn addresses(setting: &mut Setting, op: u16, owner: u64, image: &[u8]) -> Vec<u64> {
    let managed = Managed::parse(image).unwrap();
    let ask = |variable: &fatbin::ManagedVariable<'_>| {
        let name = std::ffi::CString::new(variable.name).unwrap();
        let (address, size) = setting.ask(op, owner, &name).unwrap();
        assert_eq!(size, variable.size);
        address
    };
    managed.variables().iter().map(ask).collect()
}

fn weights() -> Vec<u8> {
    [0.5f64, 1.5, 2.5, 3.5].iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn a_library_s_variables_are_in_the_window_before_there_is_a_context() {
    for file in ["managed.fatbin", "managed_code.fatbin"] {
        let mut setting = Setting::new();
        let image = image(file, 90);
        let library = setting.load(ops::library_load, CUBIN, &image, image.len()).unwrap();
        let places = addresses(&mut setting, ops::cuLibraryGetManaged, library, &image);
        let names: Vec<_> =
            Managed::parse(&image).unwrap().variables().iter().map(|v| v.name.to_owned()).collect();
        for (name, place) in names.iter().zip(&places) {
            let expected = match name.as_str() {
                "total" => vec![5, 0, 0, 0],
                "zero" => vec![0; 4],
                "weights" => weights(),
                other => panic!("{other}"),
            };
            assert_eq!(setting.memory(*place, expected.len()), expected, "{name}");
        }
        // The driver was given code for these addresses, and their memory.
        let expected = Managed::parse(&image).unwrap().place(&places).unwrap();
        assert_eq!(std::fs::read(setting.driver.dir.path().join("image")).unwrap(), expected);
        let [(base, len)] = setting.calls("register")[..] else { panic!("{:?}", setting.calls("register")) };
        assert!(
            places.iter().all(|place| (base..base + len).contains(place)),
            "{places:x?} in {base:x} + {len}"
        );
        // Other variables are the driver's.
        assert_eq!(setting.ask(ops::cuLibraryGetManaged, library, c"plain"), Err(Status::NOT_FOUND));
        assert_eq!(setting.ask(ops::cuLibraryGetGlobal, library, c"total"), Err(Status::INVALID_CONTEXT));
        setting.client.set_up();
        assert!(places.contains(&setting.ask(ops::cuLibraryGetGlobal, library, c"total").unwrap().0));
        // The program cannot free them; they end with the library.
        assert_eq!(setting.client.call(ops::cuMemFree_v2, |w| w.u64(base)), Err(Status::INVALID_VALUE));
        assert!(setting.calls("unregister").is_empty());
        setting.client.call(ops::cuLibraryUnload, |w| w.u64(library)).unwrap();
        assert_eq!(setting.calls("unregister"), [(base, 0)]);
        assert_eq!(setting.ask(ops::cuLibraryGetManaged, library, c"total"), Err(Status::INVALID_HANDLE));
    }
}

#[test]
fn each_module_has_its_own() {
    let mut setting = Setting::new();
    setting.client.set_up();
    let image = image("managed.fatbin", 75);
    let first = setting.load(ops::module_load, CUBIN, &image, image.len()).unwrap();
    let of_first = addresses(&mut setting, ops::cuModuleGetGlobal_v2, first, &image);
    let offset = setting.offset(of_first[0]);
    setting.client.window.copy_in(offset, &[9]).unwrap();
    // The stand-in gives every module the same number, which ends the first one's id.
    setting.client.call(ops::cuModuleUnload, |w| w.u64(first)).unwrap();
    let second = setting.load(ops::module_load, CUBIN, &image, image.len()).unwrap();
    let of_second = addresses(&mut setting, ops::cuModuleGetGlobal_v2, second, &image);
    // The same memory, used again: its values are those of the file.
    assert_eq!(of_second, of_first);
    let variables = Managed::parse(&image).unwrap().variables().to_vec();
    for (variable, place) in variables.iter().zip(&of_second) {
        let value =
            variable.value.clone().map_or(vec![0; variable.size as usize], |range| image[range].to_vec());
        assert_eq!(setting.memory(*place, value.len()), value, "{}", variable.name);
    }
}

#[test]
fn a_library_s_module_has_the_library_s() {
    let mut setting = Setting::new();
    setting.client.set_up();
    let image = image("managed.fatbin", 90);
    let library = setting.load(ops::library_load, CUBIN, &image, image.len()).unwrap();
    let module = setting
        .client
        .word(ops::cuLibraryGetModule, |w| {
            w.present(true);
            w.u64(library);
        })
        .unwrap();
    let of_library = addresses(&mut setting, ops::cuLibraryGetManaged, library, &image);
    assert_eq!(addresses(&mut setting, ops::cuModuleGetGlobal_v2, module, &image), of_library);
}

#[test]
fn a_context_that_goes_takes_what_was_registered() {
    let mut setting = Setting::new();
    setting.client.set_up();
    let image = image("managed.fatbin", 90);
    let library = setting.load(ops::library_load, CUBIN, &image, image.len()).unwrap();
    let before = setting.ask(ops::cuLibraryGetManaged, library, c"total").unwrap();
    assert_eq!(setting.calls("register").len(), 1);
    setting.client.call(ops::cuDevicePrimaryCtxRelease_v2, |w| w.i32(0)).unwrap();
    assert_eq!(setting.ask(ops::cuLibraryGetManaged, library, c"total"), Ok(before));
    let registered = setting.calls("register");
    assert_eq!(registered.len(), 2);
    assert_eq!(registered[0], registered[1]);
}

#[test]
fn ptx_is_compiled_first() {
    let mut setting = Setting::new();
    setting.client.set_up();
    let compiled = image("managed.fatbin", 90);
    setting.driver.write("linked", &compiled);
    let text = b".version 8.0\n.target sm_75\n.address_size 64\n.global .attribute(.managed) .align 4 .u32 total = 5;\n";
    let module = setting.load(ops::module_load, PTX, text, compiled.len()).unwrap();
    assert_eq!(setting.calls("links"), [(1, text.len() as u64 + 1)]);
    let places = addresses(&mut setting, ops::cuModuleGetGlobal_v2, module, &compiled);
    let expected = Managed::parse(&compiled).unwrap().place(&places).unwrap();
    assert_eq!(std::fs::read(setting.driver.dir.path().join("image")).unwrap(), expected);
}

#[test]
fn what_is_refused_leaves_no_memory_behind() {
    let mut setting = Setting::new();
    setting.client.set_up();
    // Its value is known to the driver alone.
    let odd = image("managed_address.fatbin", 90);
    assert_eq!(setting.load(ops::library_load, CUBIN, &odd, odd.len()), Err(Status::NOT_SUPPORTED));
    setting.driver.set("refuses");
    let image = image("managed.fatbin", 90);
    assert_eq!(setting.load(ops::library_load, CUBIN, &image, image.len()), Err(Status::INVALID_IMAGE));
    let (registered, gone) = (setting.calls("register"), setting.calls("unregister"));
    assert_eq!(registered.len(), 2);
    let bases = |calls: &[(u64, u64)]| calls.iter().map(|call| call.0).collect::<Vec<_>>();
    assert_eq!(bases(&registered), bases(&gone));
}
