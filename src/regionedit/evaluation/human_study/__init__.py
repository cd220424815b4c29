"""The human study: blinded rating forms for the pictures of several systems, and the analysis of the answers."""
