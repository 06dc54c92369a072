//! How the program is linked; nothing is generated here.

/// The program is position independent and full of tables of addresses: packed, the notes on how to adjust
/// them at the start take 20 KiB instead of 1.9 MiB, all of which would be read and stay in memory. Needs
/// glibc 2.36.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |key: &str| std::env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    if target("ARCH") == "x86_64" && target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
