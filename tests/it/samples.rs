//! The sample configurations in `conf/`.

use std::process::Command;

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

#[test]
fn every_sample_passes_the_test_without_a_remark() {
    let mut samples = 0;
    for entry in std::fs::read_dir(folder()).expect("conf").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        if !name.ends_with(".conf") {
            continue;
        }
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["-t", "-q", "-e", "stderr", "-c", &name, "-p"])
            .arg(folder())
            .output()
            .expect("run the program");
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        samples += 1;
    }
    assert!(samples >= 2);
}
