"""The options of a run, one class for each group of them; `t2i_core.config` makes one configuration of all."""
