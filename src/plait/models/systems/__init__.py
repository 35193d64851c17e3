"""The classic vision-language systems: VisualBERT, UNITER, ViLBERT and LXMERT."""
