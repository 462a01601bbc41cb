"""Parts of models: cut out, cut up, joined again and run one after the other."""
