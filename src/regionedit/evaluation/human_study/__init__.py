"""The human study: blinded rating forms made from the pictures of several systems, and the analysis of what comes back.

`python -m regionedit.evaluation.human_study make` writes the forms and their key, `... analyse` reads key and answers.
"""
