//! The pure core of ocs-lb.
#![no_std]
