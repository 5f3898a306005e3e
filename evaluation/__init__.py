"""How good the predictions are: every accuracy table, from source data to a page with plots."""
