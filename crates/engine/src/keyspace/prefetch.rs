//! Asks the processor to fetch memory that will be read soon. A hint: any address is allowed, nothing is read.
#![allow(unsafe_code)]

/// Starts fetching the cache line at `pointer`.
#[inline]
pub(super) fn prefetch<T>(pointer: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and changes nothing that a program can see.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}
