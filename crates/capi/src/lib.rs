//! The C library of Bowline: `include/kvstore.h` over the calls of crate `bowline`.
//!
//! `include/kvstore.h` is written by hand and is the documentation for C; `tests/c_program.rs` compiles a C program
//! against it. Not here: anything that the Rust library does not do.
//!
//! Invariants behind the `unsafe`: the caller keeps the header's promises (pointers come from this library or point to as
//! many bytes as it says, a store is not used after `kv_destroy`). Null pointers are refused wherever they make no sense.
//! No panic crosses into C: the release profile aborts.
#![allow(unsafe_code)]

use bowline::{Batch, Options, Store};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::time::SystemTime;

const OK: c_int = 0;
const NOT_FOUND: c_int = 1;
const ERROR: c_int = -1;

/// Entries copied in one batch by `kv_save` and `kv_load`.
const COPY_BATCH: usize = 1_000;

/// An open store, as C sees it.
#[allow(non_camel_case_types)]
pub struct kv_store(Store);

/// Figures about a store.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct kv_statistics {
    /// Keys in the store.
    pub keys: u64,
    /// Memory of all entries, bytes.
    pub entry_bytes: u64,
    /// Memory of the tables that find them, bytes.
    pub table_bytes: u64,
    /// Length of the log on disk, bytes.
    pub log_bytes: u64,
}

/// A visitor of `kv_foreach`.
#[allow(non_camel_case_types)]
pub type kv_visit = unsafe extern "C" fn(*const c_void, usize, *const c_void, usize, *mut c_void) -> c_int;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::new(CString::default());
}

fn fail(message: &str) -> c_int {
    let text: Vec<u8> = message.bytes().filter(|byte| *byte != 0).collect();
    LAST_ERROR.with(|last| *last.borrow_mut() = CString::new(text).unwrap_or_default());
    ERROR
}

fn result(outcome: Result<c_int, String>) -> c_int {
    outcome.unwrap_or_else(|message| fail(&message))
}

fn text<T>(outcome: bowline::Result<T>) -> Result<T, String> {
    outcome.map_err(|error| error.to_string())
}

fn found(there: bool) -> c_int {
    if there { OK } else { NOT_FOUND }
}

/// The store behind a pointer.
///
/// # Safety
/// `store` is null or came from `kv_create` and was not destroyed.
unsafe fn store<'a>(store: *mut kv_store) -> Result<&'a Store, String> {
    // SAFETY: as promised by the caller.
    unsafe { store.as_ref() }.map(|store| &store.0).ok_or_else(|| "the store is NULL".to_owned())
}

/// The bytes at a pointer.
///
/// # Safety
/// `pointer` points to `len` readable bytes that nobody changes, or is null.
unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Result<&'a [u8], String> {
    match (pointer.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err("a key or value is NULL but its length is not 0".to_owned()),
        // SAFETY: as promised by the caller.
        (false, len) => Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), len) }),
    }
}

/// The path at a pointer.
///
/// # Safety
/// `pointer` is null or points to a string that ends in a zero byte.
unsafe fn path(pointer: *const c_char) -> Result<PathBuf, String> {
    if pointer.is_null() {
        return Err("the directory is NULL".to_owned());
    }
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: as promised by the caller.
    let name = unsafe { CStr::from_ptr(pointer) };
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

/// Opens a store; see the header.
///
/// # Safety
/// `directory` is null or a string that ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_create(directory: *const c_char) -> *mut kv_store {
    // SAFETY: as promised by the caller.
    let opened = unsafe { path(directory) }.and_then(|directory| text(Store::open(Options::new(directory))));
    match opened {
        Ok(store) => Box::into_raw(Box::new(kv_store(store))),
        Err(message) => {
            fail(&message);
            std::ptr::null_mut()
        }
    }
}

/// Closes a store; see the header.
///
/// # Safety
/// `store` is null or came from `kv_create`, and is not used by anybody any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_destroy(store: *mut kv_store) -> c_int {
    if store.is_null() {
        return OK;
    }
    // SAFETY: as promised by the caller, this is the last use of what `kv_create` made.
    let store = unsafe { Box::from_raw(store) };
    result(text(store.0.close()).map(|()| OK))
}

/// Writes a value; see the header.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_put(
    store_pointer: *mut kv_store,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> c_int {
    // SAFETY: as promised by the caller.
    let put = || unsafe { text(store(store_pointer)?.put(bytes(key, key_len)?, bytes(value, value_len)?)) };
    result(put().map(|_| OK))
}

/// Gives a copy of a value; see the header.
///
/// # Safety
/// As the header says; `value` and `value_len` are null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_get(
    store_pointer: *mut kv_store,
    key: *const c_void,
    key_len: usize,
    value: *mut *mut c_void,
    value_len: *mut usize,
) -> c_int {
    // SAFETY: as promised by the caller.
    let get = || unsafe { text(store(store_pointer)?.get(bytes(key, key_len)?)) };
    let found = match get() {
        Ok(Some(found)) => found,
        Ok(None) => return NOT_FOUND,
        Err(message) => return fail(&message),
    };
    if value.is_null() || value_len.is_null() {
        return fail("there is no place for the value: value or value_len is NULL");
    }
    // SAFETY: malloc may be called with any size.
    let copy = unsafe { libc::malloc(found.len() + 1) };
    if copy.is_null() {
        return fail("there is no memory for the value");
    }
    // SAFETY: `copy` has room for the value and a zero byte; the places for the results can be written to.
    unsafe {
        std::ptr::copy_nonoverlapping(found.as_ptr(), copy.cast(), found.len());
        copy.cast::<u8>().add(found.len()).write(0);
        value.write(copy);
        value_len.write(found.len());
    }
    OK
}

/// Removes a key; see the header.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_delete(store_pointer: *mut kv_store, key: *const c_void, key_len: usize) -> c_int {
    // SAFETY: as promised by the caller.
    let delete = || unsafe { text(store(store_pointer)?.delete(bytes(key, key_len)?)) };
    result(delete().map(found))
}

/// Tells whether a key exists; see the header.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_exists(store_pointer: *mut kv_store, key: *const c_void, key_len: usize) -> c_int {
    // SAFETY: as promised by the caller.
    let exists = || unsafe { text(store(store_pointer)?.exists(bytes(key, key_len)?)) };
    result(exists().map(found))
}

/// Copies every entry of one store into another, with what is left of its lifetime.
fn copy_entries(from: &Store, to: &Store) -> Result<(), String> {
    let mut batch = Batch::new();
    for entry in from.iter() {
        let (key, info) = text(entry)?;
        match info.expires.map(|at| at.duration_since(SystemTime::now())) {
            None => {
                batch.put(&key, &info.value);
            }
            Some(Ok(lifetime)) => {
                text(to.put_with_lifetime(&key, &info.value, lifetime))?;
            }
            Some(Err(_)) => {}
        }
        if batch.len() == COPY_BATCH {
            text(to.write(&std::mem::take(&mut batch)))?;
        }
    }
    text(to.write(&batch)).map(|_| ())
}

/// Copies the store; see the header.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_save(store_pointer: *mut kv_store, directory: *const c_char) -> c_int {
    let save = || {
        // SAFETY: as promised by the caller.
        let (from, directory) = unsafe { (store(store_pointer)?, path(directory)?) };
        let to = text(Store::open(Options::new(&directory)))?;
        if !text(to.is_empty())? {
            return Err(format!("{} holds a store already: choose another directory", directory.display()));
        }
        copy_entries(from, &to)?;
        text(to.close())
    };
    result(save().map(|()| OK))
}

/// Reads another store into this one; see the header.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_load(store_pointer: *mut kv_store, directory: *const c_char) -> c_int {
    let load = || {
        // SAFETY: as promised by the caller.
        let (to, directory) = unsafe { (store(store_pointer)?, path(directory)?) };
        if !directory.is_dir() {
            return Err(format!("{} is not a directory", directory.display()));
        }
        let from = text(Store::open(Options::new(directory)))?;
        copy_entries(&from, to)?;
        text(from.close())
    };
    result(load().map(|()| OK))
}

/// Visits every entry; see the header.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_foreach(
    store_pointer: *mut kv_store,
    visit: Option<kv_visit>,
    context: *mut c_void,
) -> c_int {
    let each = || {
        // SAFETY: as promised by the caller.
        let store = unsafe { store(store_pointer)? };
        let visit = visit.ok_or_else(|| "the visitor is NULL".to_owned())?;
        for entry in store.iter() {
            let (key, info) = text(entry)?;
            // SAFETY: the pointers are valid during the call; the rest is the visitor's promise.
            let stop =
                unsafe { visit(key.as_ptr().cast(), key.len(), info.value.as_ptr().cast(), info.value.len(), context) };
            if stop != 0 {
                break;
            }
        }
        Ok(OK)
    };
    result(each())
}

/// Fills in figures; see the header.
///
/// # Safety
/// As the header says; `statistics` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_stats(store_pointer: *mut kv_store, statistics: *mut kv_statistics) -> c_int {
    let stats = || {
        if statistics.is_null() {
            return Err("there is no place for the figures: statistics is NULL".to_owned());
        }
        // SAFETY: as promised by the caller.
        let figures = unsafe { store(store_pointer)? }.statistics();
        let figures = kv_statistics {
            keys: figures.keys as u64,
            entry_bytes: figures.entry_bytes as u64,
            table_bytes: figures.table_bytes as u64,
            log_bytes: figures.log.live_bytes,
        };
        // SAFETY: not null, and writable as promised.
        unsafe { statistics.write(figures) };
        Ok(OK)
    };
    result(stats())
}

/// Frees what `kv_get` gave; see the header.
///
/// # Safety
/// `value` is null or came from `kv_get` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_free(value: *mut c_void) {
    // SAFETY: `kv_get` used malloc; free takes null.
    unsafe { libc::free(value) }
}

/// What the last failed call of this thread said; see the header.
#[unsafe(no_mangle)]
pub extern "C" fn kv_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}
