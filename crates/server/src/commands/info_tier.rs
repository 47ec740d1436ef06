//! INFO's lines about values that are in the block file only.

use bowline::TierStatistics;

use super::info::line;

/// The lines of the section "memory".
pub(super) fn lines(tier: &TierStatistics, out: &mut String) {
    line(out, "tier_cold_keys", tier.cold);
    line(out, "tier_values_made_cold", tier.made_cold);
    line(out, "tier_values_fetched", tier.fetched);
    line(out, "tier_values_unreadable", tier.failed);
}
