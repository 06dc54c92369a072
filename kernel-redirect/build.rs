//! Puts the eBPF object where the crate embeds it: the committed one, or with feature `bpf-source`
//! one made by ebpf/build.sh. Sets the cfg `kernel` where there is a kernel to load it into.

use std::path::PathBuf;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(kernel)");
    for file in ["redirect.bpf.c", "kernel.h", "redirect.bpf.o", "build.sh"] {
        println!("cargo::rerun-if-changed=ebpf/{file}");
    }
    println!("cargo::rerun-if-env-changed=BPF_CLANG");
    println!("cargo::rerun-if-env-changed=BPF_STRIP");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let fits = var("CARGO_CFG_TARGET_OS") == "linux" && var("CARGO_CFG_TARGET_ENDIAN") == "little";
    if !fits || std::env::var_os("CARGO_FEATURE_BPF").is_none() {
        return;
    }
    println!("cargo::rustc-cfg=kernel");
    let object = PathBuf::from(var("OUT_DIR")).join("redirect.bpf.o");
    let done = if std::env::var_os("CARGO_FEATURE_BPF_SOURCE").is_some() {
        Command::new("ebpf/build.sh")
            .arg("--out")
            .arg(&object)
            .status()
            .map_err(|e| e.to_string())
            .and_then(|status| match status.success() {
                true => Ok(()),
                false => Err("it failed; without feature bpf-source no compiler is needed".into()),
            })
            .map_err(|e| format!("ebpf/build.sh: {e}"))
    } else {
        std::fs::copy("ebpf/redirect.bpf.o", &object)
            .map(|_| ())
            .map_err(|e| format!("ebpf/redirect.bpf.o: {e}"))
    };
    if let Err(error) = done {
        println!("cargo::error={error}");
        exit(1);
    }
}
