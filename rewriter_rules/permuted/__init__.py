"""Transposes moved to where fewer of them do, through operators that work in any order of axes."""

from vlmpass.rewriter_rules.permuted.forms import Form, form_of, perm_of
from vlmpass.rewriter_rules.permuted.region import Region, inverse, region_of
from vlmpass.rewriter_rules.permuted.turning import turn

__all__ = ["Form", "Region", "form_of", "inverse", "perm_of", "region_of", "turn"]
