//! Empty: see main.rs.
#![no_std]
