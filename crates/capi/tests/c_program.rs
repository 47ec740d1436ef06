//! Compiles `program.c` against the header and the static library, and runs it.

use std::path::Path;
use std::process::Command;

#[test]
fn a_c_program_can_use_every_call() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let test_binary = std::env::current_exe().expect("the test's own path");
    let target = test_binary.parent().and_then(Path::parent).expect("target/profile/deps");
    let program = directory.path().join("program");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compiled = Command::new(compiler)
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(here.join("tests/program.c"))
        .arg("-I")
        .arg(here.join("include"))
        .arg(target.join("deps/libkvstore.a"))
        .args(["-lpthread", "-ldl", "-lm"])
        .output()
        .expect("a C compiler: install gcc, or name one in CC");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&program)
        .args([directory.path().join("store"), directory.path().join("copy")])
        .output()
        .expect("the program starts");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
