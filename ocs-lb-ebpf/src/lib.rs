//! Empty: the programs are in the binary target, which only the eBPF target
//! can build.
#![no_std]
