"""The human study: blinded rating forms for the pictures of several systems, and the analysis of the answers.

`python -m regionedit.evaluation.human_study make` writes the forms and their key; `... analyse` reads key and answers.
"""
